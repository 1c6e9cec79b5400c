"""The accept loop under everything that listens.

No framework owns a listener: each connection is handed to a `handle` as a stream of ours, which can be closed by force. That
is what ends Hypercorn's shielded send to a client that stopped reading, and what keeps a hostile head from ending the loop
(docs/design.md, D1-D4).
"""

import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from errno import EMFILE, ENFILE, ENOBUFS, ENOMEM

import trio

from daemon.log import log
from daemon.occupancy import Occupancy
from daemon.services import Services, open_services

Handle = Callable[[trio.SocketStream], Awaitable[None]]

_FULL = {EMFILE, ENFILE, ENOBUFS, ENOMEM}  # what accepting fails with until something is given back
_FULL_PAUSE = 0.1  # s
_FORCE_GRACE = 1.0  # s: closing a socket by force needs one step of the loop


class Full(Exception):
    """There are as many connections as there may be."""


class Server:
    """The connections of one accept loop."""

    _lent = 0  # of them are another loop's

    def __init__(
        self,
        handle: Handle,
        *,
        max_connections: int,
        user_timeout: float,
        grace: float = 0.0,
        on_drain: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint,
    ) -> None:
        self.refused = 0
        self._grace = grace
        self._on_drain = on_drain
        self._handle = handle
        self._max_connections = max_connections
        self._user_timeout_ms = int(user_timeout * 1000)
        self._open: Occupancy[trio.SocketStream] = Occupancy()

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._open)

    @contextmanager
    def lent(self, stream: trio.SocketStream) -> Iterator[None]:
        """Count a connection of another listener as one of this one's, and close it with them. Raises `Full`."""
        if len(self._open) >= self._max_connections:
            self.refused += 1
            raise Full
        self._lent += 1
        try:
            with self._open.entered(stream):
                yield
        finally:
            self._lent -= 1

    async def drain(self) -> None:
        """Wait until no connection is open."""
        await self._open.wait_empty()

    async def serve(
        self, listeners: Sequence[trio.SocketListener], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until cancelled; a connection's error stays in its connection.

        Cancelled, it stops to accept, calls `on_drain`, waits `grace` seconds for the connections and closes the rest by
        force: when it returns, no socket of it is open.
        """
        async with open_services() as connections:  # so that what is under way may finish after the loop has gone
            await self.serve_among(connections, listeners, task_status=task_status)

    async def serve_among(
        self,
        services: Services,
        listeners: Sequence[trio.SocketListener],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """The same as one of the services, with each connection as another: they are cancelled when the services are."""
        first, *others = listeners
        try:
            for listener in others:
                services.start_soon(self._accept, listener, services)
            task_status.started()
            await self._accept(first, services)  # in this task, as there is one for each session
        finally:
            for listener in listeners:
                listener.socket.close()
            with trio.move_on_after(self._grace, shield=True):
                await self._on_drain()
                await self.drain()
            with trio.move_on_after(_FORCE_GRACE, shield=True):
                for stream in self._open:
                    await trio.aclose_forcefully(stream)
                if self._lent:
                    await self.drain()  # they end in another listener's tasks

    async def _accept(self, listener: trio.SocketListener, connections: Services) -> None:
        """Begin a task for each connection until the listener is closed."""
        with suppress(trio.ClosedResourceError):
            while True:
                try:  # without a name for the stream, which would keep a closed one until the next
                    connections.start_soon(self._connection, await listener.accept())
                except OSError as error:
                    if error.errno not in _FULL:
                        raise
                    log.error("no connection can be accepted", error=error.strerror)
                    await trio.sleep(_FULL_PAUSE)

    async def _connection(self, stream: trio.SocketStream) -> None:
        """One connection; containment point 1 of 2."""
        if len(self._open) >= self._max_connections:
            self.refused += 1
            await trio.aclose_forcefully(stream)
            return
        with self._open.entered(stream):
            try:
                if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux: the kernel ends a peer that takes nothing for so long
                    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self._user_timeout_ms)
                await self._handle(stream)
            except* Exception as group:  # noqa: BLE001
                log.debug("a connection ended with an error", error=repr(group.exceptions[0]))
            finally:
                await trio.aclose_forcefully(stream)


async def open_listeners(host: str, port: int, backlog: int) -> list[trio.SocketListener]:
    """Listeners on a host's addresses; port 0 takes a free one, the same for all of them."""
    first, *others = await trio.open_tcp_listeners(port, host=host, backlog=backlog)
    return [first, *others]


def port_of(listeners: Sequence[trio.SocketListener]) -> int:
    """The port that listeners really have."""
    return int(listeners[0].socket.getsockname()[1])
