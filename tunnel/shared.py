"""One URL for the daemon, and each session below it at a path that nobody can guess.

For accounts with one name, and for people with a proxy and a domain of their own. The shared listener itself is the daemon's;
here is what it is mounted by.
"""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from functools import partial
from math import inf
from typing import Protocol

import trio

from tunnel import Entrance, Lost, Restored, Tunnel, TunnelError
from tunnel.wanted import Wanted

_SLUG_BYTES = 16
_OPEN_DEADLINE = 30.0  # s a session waits for the shared URL


class Mounts(Protocol):
    """A listener that serves several entrances, told apart by path."""

    number: int  # its port

    def mounted(self, path: str, entrance: Entrance) -> AbstractContextManager[None]:
        """Requests below the path are the entrance's until the block is left; then the path is gone for good."""


class SharedProvider:
    """Mounts sessions below one base URL; `keep` holds that one open."""

    def __init__(self, name: str, mounts: Mounts) -> None:
        self.name = name
        self._mounts = mounts
        self._base = Wanted[Tunnel]()
        self._tunnels: dict[Tunnel, str] = {}

    async def keep(self, open_base: "OpenBase") -> None:
        """Keep a base URL open until cancelled, and tell every session what becomes of it."""
        while True:
            try:
                async with open_base() as base:
                    self._base.have(base)
                    await self._pass_on(base)
            except TunnelError as error:
                for tunnel in self._tunnels:
                    tunnel.tell(error)
                await self._base.lack(error)

    async def _pass_on(self, base: Tunnel) -> None:
        while True:
            match await base.next_change():
                case Restored(old, new, seconds):
                    for tunnel, path in self._tunnels.items():
                        tunnel.tell(Restored(old + path, new + path, seconds))
                case Lost() as change:
                    for tunnel in self._tunnels:
                        tunnel.tell(change)

    @asynccontextmanager
    async def open(self, entrance: Entrance) -> AsyncIterator[Tunnel]:
        """A path of its own below the base URL, gone for good when the block is left."""
        base = await self._base.get(_OPEN_DEADLINE)
        path = f"/s/{secrets.token_hex(_SLUG_BYTES)}"
        tunnel = Tunnel(base.url + path)
        with self._mounts.mounted(path, entrance):
            self._tunnels[tunnel] = path
            try:
                yield tunnel
            finally:
                del self._tunnels[tunnel]


class OpenBase(Protocol):
    """How the base URL is had."""

    def __call__(self) -> AbstractAsyncContextManager[Tunnel]:
        """Open it."""


@asynccontextmanager
async def static_base(url: str) -> AsyncIterator[Tunnel]:
    """The base URL of a proxy that somebody else runs."""
    yield Tunnel(url.rstrip("/"))


@asynccontextmanager
async def kept(keep: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run a task for as long as the block; it outlives the block's cancellation."""
    running = trio.CancelScope(shield=True, deadline=inf)  # ends with the block

    async def run() -> None:
        with running:
            await keep()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        try:
            yield
        finally:
            running.cancel()


@asynccontextmanager
async def open_shared(name: str, mounts: Mounts, open_base: OpenBase) -> AsyncIterator[SharedProvider]:
    """The provider; it gets its base URL in the background. Leaving gives the URL up."""
    shared = SharedProvider(name, mounts)
    async with kept(partial(shared.keep, open_base)):
        yield shared
