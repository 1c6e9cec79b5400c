"""One session's port: /ws, /health and the preview, told apart by the request's head.

The same is answered, by the same code, over the connections of a listener that several sessions share (mounts.py).
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext, suppress

import h11
import trio

from daemon.clients import http
from daemon.clients.auth import Role, Tokens
from daemon.clients.client import Audience, Place, serve_client
from daemon.clients.preview import Preview
from daemon.clients.stream import ClientStream
from daemon.config import Config
from daemon.services import Services
from daemon.serving import Full, Server, open_listeners, port_of
from daemon.workspace.files import Workspace

# Whose a request is, and how that one sees it; or what is answered.
Find = Callable[[http.Request], "tuple[Port, http.Request] | http.Response"]

_ANY_ORIGIN = {"Access-Control-Allow-Origin": "*"}


class Port:
    """What answers on it; made by `open_port`."""

    def __init__(self, audience: Audience, tokens: Tokens, workspace: Workspace) -> None:
        self.number = 0
        config = audience.config
        self.preview = Preview(audience.journal, workspace, tokens, wait=config.preview_wait)
        self.audience = audience
        self.server = Server(
            self.handle,
            max_connections=config.max_connections,
            user_timeout=config.user_timeout,
            on_drain=self._release,
        )
        self._tokens = tokens
        self._opened = trio.current_time()

    def handle(self, socket: trio.SocketStream) -> Awaitable[None]:
        """One connection of its own."""
        return converse(socket, self._find, self.audience.config)

    def _find(self, request: http.Request) -> "tuple[Port, http.Request]":
        return self, request

    async def _release(self) -> None:
        """Let those go whom a cancellation of the server does not reach: they came over another listener."""
        self.preview.close()
        await trio.lowlevel.checkpoint()

    def entry(self, request: http.Request) -> tuple[Role, Place] | http.Response:
        """Who may open a WebSocket, and where it goes on; or why not."""
        role = self._tokens.role_of(request.token)
        if role is None:
            return http.text(401, "no or wrong token")
        given, most = request.query.get("offset") or "0", self.audience.config.max_offset
        # Not too long either: Python refuses to read thousands of digits.
        if not (given.isascii() and given.isdecimal() and len(given) < 20 and int(given) <= most):
            return http.text(400, f"offset is a number from 0 to {most}")
        return role, Place(int(given), request.query.get("epoch") or None)

    async def respond(self, request: http.Request) -> http.Response:
        """What a request that is no WebSocket's gets."""
        if request.path == "/ws":
            return http.text(426, "this is a WebSocket", Upgrade="websocket")
        if request.path == "/health":
            return self._health(request)
        return await self.preview.respond(request)

    def _health(self, request: http.Request) -> http.Response:
        if request.method == "OPTIONS":
            asked = request.headers.get("access-control-request-headers", "*")
            allow = {
                "Access-Control-Allow-Methods": "GET",
                "Access-Control-Allow-Headers": asked,
                "Access-Control-Max-Age": "600",
            }
            return http.Response(204, b"", {**_ANY_ORIGIN, **allow})
        if request.method not in {"GET", "HEAD"}:
            return http.text(405, "health is read only", Allow="GET, HEAD, OPTIONS")
        health: dict[str, object] = {"status": "healthy"}
        if self._tokens.role_of(request.token) is not None:
            journal, commands = self.audience.journal, self.audience.commands
            health |= {
                "session_id": journal.session_id,
                "connected_clients": len(self.audience.hub),
                "queued_events": journal.offset - journal.delivered,
                "queued_prompts": commands.queued_prompts,
                "offset": journal.offset,
                "epoch": journal.epoch,
                "uptime_seconds": round(trio.current_time() - self._opened, 3),
            }
        return http.json(health, **{name.replace("-", "_"): value for name, value in _ANY_ORIGIN.items()})


async def converse(socket: trio.SocketStream, find: Find, config: Config) -> None:
    """One connection: requests, until one of them turns it into a WebSocket.

    Where it is another listener's, a session that ends closes what it is just being asked, or spoken to, over it.
    """
    stream = ClientStream(socket, send_deadline=config.send_deadline)
    found = await _answer_requests(stream, socket, find, config)  # what HTTP needed is given up before a long life
    if found is not None:
        port, mounted, role, place = found
        with suppress(Full), _hosted(port, mounted, socket):
            await serve_client(stream, role, place, port.audience)


def _hosted(port: Port, mounted: bool, socket: trio.SocketStream) -> AbstractContextManager[None]:
    """While a session speaks over a connection of a shared listener, it is one of the session's own. Raises `Full`."""
    return port.server.lent(socket) if mounted else nullcontext()


async def _answer_requests(
    stream: ClientStream, socket: trio.SocketStream, find: Find, config: Config
) -> tuple[Port, bool, Role, Place] | None:
    """Answer until the peer leaves, or may open its WebSocket: with whom, by whose right, and where it goes on."""
    connection = http.HttpConnection(stream, max_head=config.max_head)
    more, deadline = True, config.head_deadline
    while more:
        request = None
        try:
            with trio.move_on_after(deadline):
                request = await connection.receive()
        except h11.RemoteProtocolError as error:
            await connection.refuse(error)
        if request is None:
            break
        found = find(request)
        if isinstance(found, http.Response):
            more = await connection.answer(request, found)
        else:
            port, seen = found
            if seen.path == "/ws" and seen.wants_websocket and seen.method == "GET":
                entry = port.entry(seen)
                if not isinstance(entry, http.Response):
                    stream.put_back(request.head)
                    return port, bool(seen.mount), *entry
                more = await connection.answer(request, entry)
            else:
                with _hosted(port, bool(seen.mount), socket):
                    more = await connection.answer(request, await port.respond(seen))
        deadline = config.keep_alive
    await connection.finish()
    return None


class _Opened(AbstractAsyncContextManager[Port]):
    """By hand, as each session has one: a generator takes ten times as much memory."""

    __slots__ = ("_port", "_services")

    def __init__(self, port: Port, services: Services) -> None:
        self._port = port
        self._services = services

    async def __aenter__(self) -> Port:
        port, services = self._port, self._services
        listeners = await open_listeners("127.0.0.1", 0, port.audience.config.backlog)
        port.number = port_of(listeners)
        port.audience.hub.fanout.start_soon = services.start_soon
        # It listens already; the listeners are its own now.
        services.start_soon(port.server.serve_among, services, listeners)
        return port

    async def __aexit__(self, *_: object) -> None:
        """It ends with the services."""


def open_port(
    services: Services, audience: Audience, tokens: Tokens, workspace: Workspace
) -> AbstractAsyncContextManager[Port]:
    """Listen on a free port of 127.0.0.1 as a service: it answers until the session's body and farewell are over."""
    return _Opened(Port(audience, tokens, workspace), services)
