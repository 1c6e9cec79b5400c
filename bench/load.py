"""The load generator: WebSocket clients that count frames and look at nothing but their headers and stamps.

It shows how much of its own core it used: well under the whole, it is no limit.
"""

import selectors
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple, Self

from bench.wire import connect, upgrade_bytes

_BUFFER = 1 << 18
_QUIET = 0.1  # s without a byte: all have joined, and all have been told so
_STAMP = b'"at '
_PATIENCE = 60.0  # s


class Frames:
    """Counts the whole text frames of a server's stream, however its bytes are cut."""

    def __init__(self) -> None:
        self.count = 0
        self._head = b""  # of a frame whose length is not known yet
        self._missing = 0  # bytes of a frame's payload
        self._text = False

    def feed(self, data: bytes) -> None:
        """What was read."""
        at = min(self._missing, len(data))
        if self._missing:
            self._missing -= at
            self.count += self._text and not self._missing
        if self._head:
            data, at, self._head = self._head + data, 0, b""
        end = len(data)
        while at < end:
            size, header = data[at + 1] & 127 if at + 1 < end else 0, 2
            if size > 125:
                header = 4 if size == 126 else 10
                size = int.from_bytes(data[at + 2 : at + header], "big")
            if at + header > end:
                self._head = data[at:]
                return
            self._text = data[at] & 15 == 1
            at += header + size
            if at > end:
                self._missing = at - end
            else:
                self.count += self._text


class Taken(NamedTuple):
    """What all clients took."""

    frames: int
    seconds: float  # from the command to the last byte
    own_share: float  # of the load's core that the load used
    delays: Sequence[float]  # ms from publish to here, of the events whose stamps were read


class Listeners:
    """That many clients, spread over the doors in turn; leaving the block drops them."""

    def __init__(self, doors: Sequence[tuple[int, str]], count: int) -> None:
        self._stack = ExitStack()
        self._selector = self._stack.enter_context(selectors.DefaultSelector())
        try:
            for at in range(count):
                self._join(*doors[at % len(doors)])
        except BaseException:
            self._stack.close()
            raise

    def _join(self, port: int, target: str) -> None:
        connection = self._stack.enter_context(connect(port))
        connection.sendall(upgrade_bytes(target))
        head = b""
        while (end := head.find(b"\r\n\r\n")) < 0:
            data = connection.recv(65536)
            if not data:
                raise ConnectionError(f"no WebSocket: {head!r}")
            head += data
        if not head.startswith(b"HTTP/1.1 101"):
            raise ConnectionError(f"no WebSocket: {head!r}")
        frames = Frames()
        frames.feed(head[end + 4 :])
        self._selector.register(connection, selectors.EVENT_READ, frames)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def settle(self) -> None:
        """Read until nothing comes any more: what clients are told of each other is no part of a measurement."""
        while ready := self._selector.select(_QUIET):
            for key, _ in ready:
                key.data.feed(key.fileobj.recv(_BUFFER))  # type: ignore[union-attr]

    def take(self, each: int) -> Taken:
        """Read until every client has been sent that many frames more."""
        counters = [key.data for key in self._selector.get_map().values()]
        goals = {id(frames): frames.count + each for frames in counters}
        waiting, delays, clock = len(counters), [], time.perf_counter_ns
        began, cpu, read = time.perf_counter(), time.process_time(), bytearray(_BUFFER)
        view = memoryview(read)
        while waiting:
            ready = self._selector.select(1)
            if time.perf_counter() > began + _PATIENCE:
                raise TimeoutError(f"{waiting} clients still wait")
            for key, _ in ready:
                size = key.fileobj.recv_into(read)  # type: ignore[union-attr]
                if not size:
                    raise ConnectionError("the server dropped a client")
                now, data, frames = clock(), bytes(view[:size]), key.data
                goal = goals[id(frames)]
                before = frames.count
                frames.feed(data)
                waiting -= before < goal <= frames.count
                if (found := data.find(_STAMP)) >= 0 and (end := data.find(b" ", found + 4)) >= 0:
                    delays.append((now - int(data[found + 4 : end])) / 1e6)
        seconds = time.perf_counter() - began
        return Taken(each * len(counters), seconds, (time.process_time() - cpu) / seconds, delays)
