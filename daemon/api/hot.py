"""The requests that are asked most, answered before the framework sees them: a session, and the daemon's health.

Only what is plain: no query, no body, nobody from another origin, nothing to refuse. All else is the framework's, with the same
guard and the same headers; a test holds the two against each other.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from daemon.api.app import HEADERS
from daemon.api.guard import caller_of, check
from daemon.api.status import health_of
from daemon.config import Config
from daemon.errors import CallerError
from daemon.sessions.registry import Registry

_SESSION = "/api/sessions/"
_BODY = {b"content-length", b"transfer-encoding"}
_HEAD = [
    (b"content-type", b"application/json"),
    (b"cache-control", b"no-store"),
    *((name.lower().encode(), value.encode()) for name, value in HEADERS.items()),
]

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Hot:
    """An ASGI app in front of another."""

    def __init__(self, app: Any, registry: Registry, config: Config) -> None:
        self._app = app
        self._registry = registry
        self._config = config

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
        if any(name in _BODY for name, _ in scope["headers"]):
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
