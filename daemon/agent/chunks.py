"""A chunked body (RFC 9112, 7.1) whose chunks are made one where they come together; pure.

Where a chunk ends means nothing, but each costs its own way up through h11, httpcore and httpx, which for a piece of text is
more than all the rest. Whatever is not understood is passed on as it is: h11 will say what it thinks of it.
"""

import re

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n")
_HALF_A_SIZE = re.compile(rb"[0-9A-Fa-f]{0,8}\r?")
_HELD = 1 << 16  # bytes: a chunk that is longer is passed on as it comes


class Chunks:
    """One body, some of which may have been passed on already."""

    def __init__(self, begun: bytes) -> None:
        _, rest, more = _split(begun)
        self._held = b""  # the beginning of a chunk
        self._missing = _missing(rest)  # bytes of a chunk whose beginning was passed on
        self._as_it_is = not more or bool(rest and not self._missing)

    def join(self, data: bytes) -> bytes:
        """What to pass on of what has come, where nothing has come of all that is left; it may be nothing for now."""
        if self._as_it_is:
            return data
        if not data:
            self._as_it_is = True
            return self._held
        data, self._held = self._held + data, b""
        begun, data = data[: self._missing], data[self._missing :]
        self._missing -= len(begun)
        bodies, rest, more = _split(data)
        if not more:
            self._as_it_is = True
        elif len(rest) <= _HELD:
            self._held, rest = rest, b""
        else:
            self._missing = _missing(rest)
        body = b"".join(bodies)
        return b"%s%x\r\n%s\r\n%s" % (begun, len(body), body, rest) if body else begun + rest


def _split(data: bytes) -> tuple[list[bytes], bytes, bool]:
    """What whole chunks hold, what follows them, and whether that is, so far, the beginning of one that holds something."""
    bodies: list[bytes] = []
    at = 0
    while size := _SIZE.match(data, at):
        start = size.end()
        end = start + int(size[1], 16)
        if end == start or (end + 2 <= len(data) and data[end : end + 2] != b"\r\n"):
            return bodies, data[at:], False
        if end + 2 > len(data):
            return bodies, data[at:], True
        bodies.append(data[start:end])
        at = end + 2
    return bodies, data[at:], _HALF_A_SIZE.fullmatch(data, at) is not None


def _missing(rest: bytes) -> int:
    """How many bytes make the chunk whole that begins there; 0 where that cannot be seen yet."""
    size = _SIZE.match(rest)
    return size.end() + int(size[1], 16) + 2 - len(rest) if size else 0
