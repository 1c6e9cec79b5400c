"""The bytes of one client: what was read ahead is put back, and all that is written goes through one lock.

trio-websocket writes its handshake, pongs and closes through `send_all`; the journal's ready frames go out through `try_write`
where a client keeps up, else through `send_frames`, from memory or straight from their file. A write that makes no progress
within the deadline ends the connection by force: half a frame cannot be followed by another one.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from math import inf

import trio

from daemon.journal.segment import Stored

_CLOSE = b"\x88"  # the first byte of a WebSocket close
_FILE_STEP = 256 * 1024  # bytes of a file at once: what a longer step would delay other sessions by
_LINGER = 0.5  # s


class ClientStream(trio.abc.HalfCloseableStream):
    """A stream with a read-ahead and a deadline on progress."""

    __slots__ = (
        "_ahead",
        "_broken",
        "_close_sent",
        "_closed",
        "_left",
        "_lock",
        "_over",
        "_send_deadline",
        "_socket",
        "_stream",
        "evicted",
        "heard",
        "last_word",
        "on_end",
    )  # each client has one

    def __init__(self, stream: trio.abc.HalfCloseableStream, *, send_deadline: float) -> None:
        self.last_word: Callable[[], bytes] = (
            bytes  # what is still to be sent when the stream is closed, if no close was
        )
        self.on_end: Callable[[], object] = bool  # called when nothing more will come from the client
        self.evicted = False  # it took nothing for `send_deadline` seconds
        self._stream = stream
        self._socket = stream.socket if isinstance(stream, trio.SocketStream) else None
        self._send_deadline = send_deadline
        self._lock = trio.StrictFIFOLock()
        self._ahead = b""
        self._left: memoryview | None = None  # of frames that were written in part
        self._broken = False
        self.heard = -inf  # when the peer last sent anything
        self._closed = False
        self._close_sent = False
        self._over = False  # one of the three: no frame may follow

    @property
    def takes_files(self) -> bool:
        """Whether `send_frames` can send from a file: over a plain socket, not in memory or under TLS."""
        return self._socket is not None

    def put_back(self, data: bytes) -> None:
        """The next `receive_some` gives these bytes first."""
        self._ahead = data + self._ahead

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:  # noqa: D102
        if self._ahead:
            await trio.lowlevel.checkpoint()
            size = max_bytes or len(self._ahead)
            ahead, self._ahead = self._ahead[:size], self._ahead[size:]
            return ahead
        try:
            data = await self._stream.receive_some(max_bytes)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.on_end()
            raise
        if not data:
            self.on_end()
        self.heard = trio.current_time()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:  # noqa: D102
        async with self._lock:
            if data[:1] == _CLOSE:
                self._close_sent = self._over = True
            await self._send(data)

    async def send_frames(self, data: bytes | Stored, closed: Callable[[], object]) -> bool:
        """Send whole frames unless a close has been sent before it is their turn; whether they were sent.

        What lies in a file is closed by this call however it ends.
        """
        try:
            async with self._lock:
                if closed():
                    return False
                await self._send(data)
                return True
        finally:
            if isinstance(data, Stored):
                data.close()

    def try_write(self, data: bytes) -> int:
        """Write whole frames without waiting; how many bytes were taken, as write(2) says.

        What is left of them is sent by `settle`, or before whatever is sent next. Nothing is taken after a close, where somebody
        else is writing, the stream is no plain socket, or the client takes nothing for now.
        """
        if self._over or self._left or self._socket is None or self._lock.locked():
            return 0
        try:
            sent = os.write(self._socket.fileno(), data)
        except OSError:  # who waits for it meets it again
            return 0
        if 0 < sent < len(data):
            self._left = memoryview(data)[sent:]  # not a copy: all clients may hold the same
        return sent

    async def settle(self) -> None:
        """Send what `try_write` left."""
        await trio.lowlevel.checkpoint()
        if self._left:
            async with self._lock:
                await self._send(b"")

    async def _send(self, data: bytes | bytearray | memoryview | Stored) -> None:
        if self._closed:
            raise trio.ClosedResourceError
        if self._broken:
            raise trio.BrokenResourceError("an earlier write was cut short")
        try:  # no checkpoint besides the lock's
            if self._left:
                left, self._left = self._left, None
                await self._write(len(left), lambda socket, sent: os.write(socket, left[sent:]))
            if isinstance(data, Stored):
                await self._write(data.length, partial(data.send, most=_FILE_STEP))
            elif self._socket is not None:
                view = memoryview(data)
                await self._write(len(view), lambda socket, sent: os.write(socket, view[sent:]))
            else:
                with trio.fail_after(self._send_deadline):
                    await self._stream.send_all(data)
        except trio.TooSlowError:
            self.evicted = True
            await self._abort()
            raise trio.BrokenResourceError("the client takes nothing") from None
        except OSError as error:
            await self._abort()
            raise trio.BrokenResourceError("the connection is gone") from error
        except trio.Cancelled:
            await self._abort()
            raise

    async def _write(self, size: int, write: Callable[[int, int], int]) -> None:
        """Call `write` with the socket and how much was sent until all is."""
        assert self._socket is not None
        sent = 0
        while sent < size:
            try:  # at once: a scope and two trips through the scheduler for each write would cost more than the write
                sent += write(self._socket.fileno(), sent)
            except BlockingIOError:
                with trio.fail_after(self._send_deadline):  # renewed with each bit of progress
                    await trio.lowlevel.wait_writable(self._socket)

    async def _abort(self) -> None:
        self._broken = self._over = True
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
            await trio.aclose_forcefully(self._stream)

    async def wait_send_all_might_not_block(self) -> None:  # noqa: D102
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:  # noqa: D102
        async with self._lock:
            await self._stream.send_eof()

    async def aclose(self) -> None:  # noqa: D102
        if not self._closed and not self._close_sent and (last := self.last_word()):
            # Shielded: the library has closed the connection already, and its other tasks are being cancelled for it.
            with trio.move_on_after(_LINGER, shield=True), suppress(trio.BrokenResourceError):
                await self.send_all(last)
                await self._stream.send_eof()
                while await self._stream.receive_some(65536):  # closed upon unread bytes, the last word could be lost
                    pass
        self._closed = self._over = True
        self.on_end()
        await self._stream.aclose()
