"""The accept loop under everything that listens.

No framework owns a listener: each connection is handed to a `handle` as a stream of ours, which can be closed by force. That
is what ends Hypercorn's shielded send to a client that stopped reading, and what keeps a hostile head from ending the loop
(docs/design.md, D1-D4).
"""

import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import trio

from daemon.log import log
from daemon.occupancy import Occupancy
from daemon.services import open_services

Handle = Callable[[trio.SocketStream], Awaitable[None]]

_FORCE_GRACE = 1.0  # s: closing a socket by force needs one step of the loop


class Full(Exception):
    """There are as many connections as there may be."""


class Server:
    """The connections of one accept loop."""

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
        with self._open.entered(stream):
            yield

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
            async with trio.open_nursery() as accepting:
                handle = partial(connections.outlive, self._connection)
                accept = partial(trio.serve_listeners, handler_nursery=connections.nursery)
                await accepting.start(accept, handle, list(listeners))
                task_status.started()
                try:
                    await trio.sleep_forever()
                finally:
                    accepting.cancel_scope.cancel()
                    with trio.move_on_after(self._grace, shield=True):
                        await self._on_drain()
                        await self.drain()
                    with trio.move_on_after(_FORCE_GRACE, shield=True):
                        for stream in self._open:
                            await trio.aclose_forcefully(stream)
                        await self.drain()  # those of another listener end in its tasks

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
