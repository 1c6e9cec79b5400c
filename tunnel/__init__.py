"""How a port of this machine gets a URL that others can open.

    async with provider.open(port) as tunnel:
        tunnel.url                                # lives exactly as long as the block

__init__.py (the protocol) · local.py (the port's own loopback URL) · probe.py (asking a URL through its tunnel)
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol


class TunnelError(Exception):
    """A URL could not be had or kept; `code` is the provider's own."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


@dataclass(frozen=True)
class Tunnel:
    """A public base URL without a trailing slash, `http://…` or `https://…`."""

    url: str

    @property
    def websocket_url(self) -> str:
        """The address of the event stream."""
        return "ws" + self.url.removeprefix("http") + "/ws"


class TunnelProvider(Protocol):
    """What gives tunnels. One is open for the whole life of the daemon."""

    name: str

    def open(self, port: int) -> AbstractAsyncContextManager[Tunnel]:
        """A tunnel to a port of 127.0.0.1. Leaving the block, cancelled or not, takes the URL away before it returns.

        Raises `TunnelError` where there is none to be had.
        """


@asynccontextmanager
async def open_provider(name: str) -> AsyncIterator[TunnelProvider]:
    """The provider of that name. Leaving ends whatever it runs."""
    if name != "local":
        raise TunnelError("unknown_provider", f"there is no tunnel provider {name!r}")
    from tunnel.local import LocalProvider  # noqa: PLC0415  # a provider imports this module

    yield LocalProvider()
