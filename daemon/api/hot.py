"""The requests that are asked most, answered before the framework sees them: a session, and the daemon's health.

Only what is plain: no query, no body, nobody from another origin, nothing to refuse. All else is the framework's, with the same
guard and the same headers; a test holds the two against each other. A connection that has asked for nothing else is not even
handed to Hypercorn: h11 answers it here.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from time import time
from typing import Any
from wsgiref.handlers import format_date_time

import h11
import msgspec
import trio

from daemon.api.app import HEADERS
from daemon.api.guard import caller_of, check
from daemon.api.status import health_of
from daemon.config import Config
from daemon.errors import CallerError
from daemon.sessions.registry import Registry

_SESSION = "/api/sessions/"
_NOT_PLAIN = {b"content-length", b"transfer-encoding", b"upgrade", b"expect"}
_TARGET = re.compile(rb"/health|/api/sessions/[A-Za-z0-9_.-]+")
_READ = 1 << 16  # bytes, as Hypercorn
_HEAD = [
    (b"content-type", b"application/json"),
    (b"cache-control", b"no-store"),
    *((name.lower().encode(), value.encode()) for name, value in HEADERS.items()),
]

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Hot:
    """An ASGI app in front of another, and what comes before both on a connection."""

    def __init__(self, app: Any, registry: Registry, config: Config) -> None:
        self._app = app
        self._registry = registry
        self._config = config
        self._idle: set[trio.CancelScope] = set()  # of connections that wait for a request
        self._ending = False

    async def serve(self, stream: trio.SocketStream) -> bytes:
        """Answer until something else is asked: what was read of that. Nothing where the connection has ended."""
        speaker = h11.Connection(h11.SERVER, max_incomplete_event_size=self._config.max_head)
        ends = {"type": "http", "client": stream.socket.getpeername(), "server": stream.socket.getsockname()}
        while not self._ending and (data := await self._receive(stream)):
            while data:
                end = data.find(b"\r\n\r\n") + 4
                answer = self._answer(speaker, data[:end], ends) if end >= 4 else None
                if answer is None:
                    return data
                with suppress(trio.BrokenResourceError):
                    await stream.send_all(answer)
                if speaker.our_state is not h11.DONE:  # the client wants it closed
                    return b""
                speaker.start_next_cycle()
                data = data[end:]
        return b""

    def close_idle(self) -> None:
        """End the connections that `serve` has, but for those it is answering."""
        self._ending = True
        for waiting in self._idle:
            waiting.cancel()

    async def _receive(self, stream: trio.SocketStream) -> bytes:
        """What comes next; nothing where nothing does for too long."""
        with trio.move_on_after(self._config.keep_alive) as waiting, suppress(trio.BrokenResourceError):
            self._idle.add(waiting)
            try:
                return bytes(await stream.receive_some(_READ))
            finally:
                self._idle.discard(waiting)
        return b""

    def _answer(self, speaker: h11.Connection, head: bytes, ends: Mapping[str, Any]) -> bytes | None:
        """The whole answer to a request; None where it is the framework's."""
        try:
            speaker.receive_data(head)
            asked = speaker.next_event()
        except h11.RemoteProtocolError:
            return None
        if not isinstance(asked, h11.Request) or asked.http_version != b"1.1" or not _TARGET.fullmatch(asked.target):
            return None
        scope = {
            "method": asked.method.decode(),
            "path": asked.target.decode(),
            "query_string": b"",
            "headers": asked.headers,
        }
        body = self._body({**ends, **scope})
        if body is None:
            return None
        speaker.next_event()  # the end of the request
        said = _head(len(body), int(time())), h11.Data(data=body), h11.EndOfMessage()
        return b"".join(speaker.send(event) or b"" for event in said)

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """One request."""
        body = self._body(scope)
        if body is None:
            await self._app(scope, receive, send)
            return
        await receive()  # the end of the request
        headers = [*_HEAD, (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _body(self, scope: Mapping[str, Any]) -> bytes | None:
        """The answer; None where it is the framework's."""
        if scope["type"] != "http" or scope["method"] != "GET" or scope["query_string"] or self._config.allow_origin:
            return None
        if any(name in _NOT_PLAIN for name, _ in scope["headers"]):
            return None
        path: str = scope["path"]
        try:
            check(caller_of(scope), self._config)
            if path == "/health":
                return msgspec.json.encode(health_of(self._registry))
            if path.startswith(_SESSION) and "/" not in path[len(_SESSION) :]:
                return msgspec.json.encode(self._registry.get(path[len(_SESSION) :]))
        except CallerError:
            return None
        return None


@lru_cache(32)  # h11 checks each header that it is given, which is a third of an answer
def _head(length: int, second: int) -> h11.Response:
    headers = [(b"date", format_date_time(second).encode()), *_HEAD, (b"content-length", b"%d" % length)]
    return h11.Response(status_code=200, headers=headers)
