"""One listener for several sessions, told apart by the first part of the path.

It reads a request's head and hands the connection, head included, to the session's own handler: nothing is relayed or copied.
A connection may ask several sessions one after the other, as those of a proxy do.
"""

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import cast
from urllib.parse import urlencode

import trio

from daemon.clients import http
from daemon.clients.port import Port, converse
from daemon.config import Config
from daemon.services import open_services
from daemon.serving import Server, open_listeners, port_of
from tunnel import Entrance

_REMEMBERED = 10_000  # paths of sessions that have ended


class Mounts:
    """Made by `open_mounts`."""

    def __init__(self, config: Config) -> None:
        self.number = 0
        self._config = config
        self._ports: dict[str, Port] = {}
        self._gone: deque[str] = deque(maxlen=_REMEMBERED)

    @contextmanager
    def mounted(self, path: str, entrance: Entrance) -> Iterator[None]:
        """Requests below `/s/<slug>` are the entrance's until the block is left; then the path is gone for good."""
        self._ports[path] = cast("Port", entrance)
        try:
            yield
        finally:
            del self._ports[path]
            self._gone.append(path)

    def handle(self, socket: trio.SocketStream) -> Awaitable[None]:
        """One connection."""
        return converse(socket, self._find, self._config)

    def _find(self, request: http.Request) -> tuple[Port, http.Request] | http.Response:
        _, first, slug, *_ = [*request.raw_path.split("/", 3), "", ""]
        path = f"/{first}/{slug}"
        port = self._ports.get(path)
        if port is not None and request.raw_path == path:
            query = f"?{urlencode(request.query)}" if request.query else ""
            return http.Response(302, b"", {"Location": f"{path}/{query}", "Cache-Control": "no-store"})
        if port is not None:
            return port, request.below(path)
        if path in self._gone:
            return http.text(410, "this session has ended")
        if request.path == "/health":
            return http.json({"status": "healthy"})
        return http.text(404, "there is no such session")


@asynccontextmanager
async def open_mounts(config: Config, number: int) -> AsyncIterator[Mounts]:
    """Listen on a port of 127.0.0.1, 0 for any free one, until the block is left."""
    mounts = Mounts(config)
    listeners = await open_listeners("127.0.0.1", number, config.backlog)
    mounts.number = port_of(listeners)
    server = Server(mounts.handle, max_connections=config.max_shared_connections, user_timeout=config.user_timeout)
    async with open_services() as services:
        try:
            await services.start(server.serve, listeners)
        except BaseException:
            for listener in listeners:
                listener.socket.close()
            raise
        yield mounts
