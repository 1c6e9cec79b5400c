"""Hypercorn on a stream of ours: the one place that touches it.

`TCPServer`, `WorkerContext` and `ASGIWrapper` are not documented API: the version is pinned and a test speaks through them.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config as HypercornConfig
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext

from daemon.api.hot import Hot
from daemon.config import Config

_NO_LIMIT = 1 << 62  # requests on one connection; Hypercorn would close it after 1,000

_LAST_STEPS = 1.0  # s: what a request may still do once its connection is gone

Message = dict[str, Any]


class _Exchange:
    """One request and its answer, as the app sees them."""

    def __init__(self, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]) -> None:
        self._receive = receive
        self._send = send
        self._body_read = trio.Event()
        self._answered = False

    async def receive(self) -> Message:
        """What comes from the client; its going away counts only until it has its answer.

        Hypercorn says `http.disconnect` after every answer, from within the send of its last part. Quart would cancel that
        send, and with it what follows in there: the next request's idle timeout, or the close of the connection.
        """
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._body_read.set()
            if self._answered:
                await trio.sleep_forever()
        if message["type"] == "http.request" and not message["more_body"]:
            self._body_read.set()
        return message

    async def send(self, message: Message, *, patience: float) -> None:
        """What goes to the client; an answer that comes before the body's end waits for it, but not for long.

        A connection closed upon unread data is reset, and a client may lose the answer to that.
        """
        if message["type"] == "http.response.start" and not self._body_read.is_set():
            with trio.move_on_after(patience):
                await self._body_read.wait()
        self._answered = message["type"] == "http.response.body" and not message.get("more_body", False)
        await self._send(message)


class _Stream(trio.abc.HalfCloseableStream):
    """A stream that ends its connection soon after the peer has left, it broke, or Hypercorn closed it.

    Hypercorn would go on: for the keep-alive time where no request is under way, and for ever behind a request that was
    pipelined (it waits for the end of an answer that nobody takes any more).
    """

    def __init__(self, stream: trio.SocketStream, ahead: bytes, connection: trio.CancelScope) -> None:
        self.socket = stream.socket
        self._ahead = ahead  # what was read of it before
        self._stream = stream
        self._connection = connection

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self._ahead:
            await trio.lowlevel.checkpoint()
            size = max_bytes or len(self._ahead)
            ahead, self._ahead = self._ahead[:size], self._ahead[size:]
            return ahead
        with self._ending():
            data = await self._stream.receive_some(max_bytes)
        if not data:
            self._end()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with self._ending():
            await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        self._end()
        await self._stream.aclose()

    @contextmanager
    def _ending(self) -> Iterator[None]:
        try:
            yield
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._end()
            raise

    def _end(self) -> None:
        self._connection.deadline = min(self._connection.deadline, trio.current_time() + _LAST_STEPS)


class ApiConnections:
    """Speaks HTTP for an ASGI app on each stream it is handed, after what is `hot` there."""

    def __init__(self, app: Any, config: Config, hot: Hot | None = None) -> None:
        async def exchange(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            both = _Exchange(receive, send)
            await app(scope, both.receive, lambda message: both.send(message, patience=config.api_grace))

        self._hot = hot
        self._app = ASGIWrapper(exchange)
        self._config = HypercornConfig()
        self._config.keep_alive_timeout = config.keep_alive
        self._config.keep_alive_max_requests = _NO_LIMIT
        self._config.h11_max_incomplete_size = config.max_head
        self._config.include_server_header = False
        self._config.errorlog = None
        self._context = WorkerContext(None)

    async def handle(self, stream: trio.SocketStream) -> None:
        """One connection."""
        ahead = b""
        if self._hot is not None and not (ahead := await self._hot.serve(stream)):
            return
        server: Callable[..., Awaitable[None]] = TCPServer
        with trio.CancelScope() as connection:
            await server(self._app, self._config, self._context, {}, _Stream(stream, ahead, connection))

    async def close_idle(self) -> None:
        """Connections without a request under way end now, the others after it."""
        if self._hot is not None:
            self._hot.close_idle()
        await self._context.terminated.set()
