"""The frames that were shown last, in memory, for as long as somebody reads them there.

Nobody reads them where no client is connected, and the fan-out has read each as soon as it has written it: a session in which
nobody is late keeps none.
"""

from collections.abc import Callable

MOST_BYTES = 64 * 1024  # a client that falls off it reads the file, which costs little
MOST_FRAMES = 2048


class Ring:
    """Journaled and live-only frames in the order in which they were shown, each with the last journaled offset by then."""

    __slots__ = ("_entries", "_readers", "_size", "on_full", "sequence")  # each session has one

    def __init__(self) -> None:
        self.sequence = 0  # the number of the frame that is shown next
        self.on_full: Callable[[], object] = bool  # called before the oldest falls off
        self._entries: list[tuple[bytes, int]] = []  # an empty deque takes as much memory as a frame
        self._size = 0  # bytes of frames in it
        self._readers = 0

    @property
    def first(self) -> int:
        """The number of the oldest frame that is held, or else of the next one."""
        return self.sequence - len(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def join(self) -> None:
        """Keep what is shown from now on for one reader more, until it leaves."""
        self._readers += 1

    def leave(self) -> None:
        """One reader is gone."""
        self._readers -= 1
        if not self._readers:
            self._clear()

    def put(self, ready: bytes, offset: int) -> None:
        """Show one frame; the oldest fall off where there would be too many."""
        self.sequence += 1
        if not self._readers:
            return
        self._entries.append((ready, offset))
        self._size += len(ready)
        if self._size > MOST_BYTES or len(self._entries) > MOST_FRAMES:
            self._shrink()

    def _shrink(self) -> None:
        while len(self._entries) > MOST_FRAMES or (self._size > MOST_BYTES and len(self._entries) > 1):
            before = len(self._entries)
            self.on_full()
            if len(self._entries) == before:
                self._size -= len(self._entries.pop(0)[0])

    def after(self, sequence: int) -> list[tuple[bytes, int]] | None:
        """What was shown from a number on, or None where that is no longer held."""
        start = len(self._entries) - (self.sequence - sequence)
        return self._entries[start:] if start >= 0 else None

    def take_back(self, sequence: int) -> None:
        """It was not shown after all, from that number on; nobody has read it."""
        kept = max(0, sequence - self.first)
        self._size -= sum(len(ready) for ready, _ in self._entries[kept:])
        del self._entries[kept:]
        self.sequence = sequence

    def forget(self) -> None:
        """A reader has read all: what nobody else reads is not kept."""
        if self._readers <= 1:
            self._clear()

    def _clear(self) -> None:
        if self._entries:
            self._entries, self._size = [], 0
