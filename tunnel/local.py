"""No tunnel: a port's own loopback URL, for work on one machine and for tests."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tunnel import Entrance, Tunnel


class LocalProvider:
    """The URL is the port's own."""

    name = "local"

    @asynccontextmanager
    async def open(self, entrance: Entrance) -> AsyncIterator[Tunnel]:
        """Nothing has to be taken away on leaving: the port is closed by its owner."""
        yield Tunnel(f"http://127.0.0.1:{entrance.number}")
