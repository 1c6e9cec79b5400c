"""What a command prints, as safe text in bounds: its beginning and its end, and how much there was."""

import codecs
import io
import re
from collections.abc import Callable

TRUNCATED = "\n[truncated: {size} bytes in all; above is the beginning, below the end]\n"
# What could move a terminal's cursor, or break or reorder a line, whoever shows it.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


class Output:
    """One command's output. `show` is given each piece of the beginning, as text, when it comes."""

    def __init__(self, limit: int, show: Callable[[str], object] = lambda _: None) -> None:
        self.size = 0
        self._first, self.last = limit - limit // 4, limit // 4  # the end is where a compiler says what is wrong
        self._show = show
        self._decoder = _decoder()
        self._head = b""
        self._tail = b""

    @property
    def full(self) -> bool:
        """Whether what follows is shown to nobody as it comes."""
        return len(self._head) >= self._first

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        self.size += len(data)
        head = data[: self._first - len(self._head)]
        if head:
            self._head += head
            if text := _safe(self._decoder.decode(head)):
                self._show(text)
            data = data[len(head) :]
        if data:
            self._tail = (self._tail + data[-self.last :])[-self.last :]

    def skip(self, size: int) -> None:
        """Count bytes that nobody will see: `full`, with `last` bytes or more still to come."""
        self.size += size

    def text(self) -> str:
        """All of it, or its beginning and its end."""
        if self.size <= self._first + self.last:
            return _text(self._head + self._tail)
        return _text(self._head) + TRUNCATED.format(size=self.size) + _text(self._tail)


def _text(data: bytes) -> str:
    return _safe(_decoder().decode(data, final=True))


def _decoder() -> io.IncrementalNewlineDecoder:
    """Bytes that are no UTF-8 become U+FFFD, and each way to end a line a line feed."""
    return io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8")(errors="replace"), translate=True)


def _safe(text: str) -> str:
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)
