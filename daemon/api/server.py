"""Hypercorn on a stream of ours: the one place that touches it.

`TCPServer`, `WorkerContext` and `ASGIWrapper` are not documented API: the version is pinned and a test speaks through them.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config as HypercornConfig
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext

from daemon.config import Config

_NO_LIMIT = 1 << 62  # requests on one connection; Hypercorn would close it after 1,000


class ApiConnections:
    """Speaks HTTP for an ASGI app on each stream it is handed."""

    def __init__(self, app: Any, config: Config) -> None:
        self._app = ASGIWrapper(app)
        self._config = HypercornConfig()
        self._config.keep_alive_timeout = config.keep_alive
        self._config.keep_alive_max_requests = _NO_LIMIT
        self._config.h11_max_incomplete_size = config.max_head
        self._config.include_server_header = False
        self._config.errorlog = None
        self._context = WorkerContext(None)

    async def handle(self, stream: trio.SocketStream) -> None:
        """One connection."""
        server: Callable[..., Awaitable[None]] = TCPServer
        await server(self._app, self._config, self._context, {}, stream)

    async def close_idle(self) -> None:
        """Connections without a request under way end now, the others after it."""
        await self._context.terminated.set()
