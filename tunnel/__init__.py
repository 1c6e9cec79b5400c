"""How a port of this machine gets a URL that others can open.

    async with provider.open(entrance) as tunnel:
        tunnel.url                                # lives exactly as long as the block

__init__.py (the protocol) · choose.py (which provider) · wanted.py (waited for by many) · local.py (the port's own loopback URL) · ngrok.py (an endpoint a
session) · shared.py (a path a session, below one URL) · agent.py (the ngrok process, kept running) · endpoints.py (what it
has open) · leash.py (it ends when we do) · calls.py (pyngrok) · caller.py (its calls, each with an end) · install.py (binary, authtoken, configuration) · codes.py (what ngrok's errors mean) ·
checkup.py (an account, tried) · backoff.py ·
probe.py (asking a URL through its tunnel)
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

import trio


class TunnelError(Exception):
    """A URL could not be had or kept; `code` is the provider's own."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


@dataclass(frozen=True)
class Lost:
    """The URL does not answer for now."""

    code: str
    detail: str


@dataclass(frozen=True)
class Restored:
    """A URL answers again, the same or, where `old` and `new` differ, another one."""

    old: str
    new: str
    seconds: float  # it was away for


class Tunnel:
    """A public base URL without a trailing slash, `http://…` or `https://…`, and what becomes of it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.on_change: Callable[[], object] = bool  # called when there is one to take
        self._changes: list[Lost | Restored | TunnelError] = []  # a session costs a task less than with a channel

    @property
    def websocket_url(self) -> str:
        """The address of the event stream."""
        return websocket_url(self.url)

    def tell(self, change: Lost | Restored | TunnelError) -> None:
        """For its provider: what happened, the end of all attempts as a `TunnelError`."""
        if isinstance(change, Restored):
            self.url = change.new
        self._changes.append(change)
        self.on_change()

    def take_change(self) -> Lost | Restored | None:
        """What happened next, or None for now. Raises `TunnelError` once the URL is given up."""
        if not self._changes:
            return None
        change = self._changes.pop(0)
        if isinstance(change, TunnelError):
            raise change
        return change

    async def next_change(self) -> Lost | Restored:
        """Wait for what happens next, in one task alone. Raises `TunnelError` once the URL is given up."""
        while (change := self.take_change()) is None:
            told = trio.Event()
            self.on_change = told.set
            await told.wait()
        return change


def websocket_url(url: str) -> str:
    """The address of the event stream below a base URL."""
    return "ws" + url.removeprefix("http") + "/ws"


class Log(Protocol):
    """Where a provider says what it does: an event's name and its facts."""

    def info(self, event: str, **facts: object) -> None:
        """What happened."""

    def warning(self, event: str, **facts: object) -> None:
        """What somebody should know of."""


class Entrance(Protocol):
    """What a provider makes public: a port of 127.0.0.1, and whatever a shared listener needs to serve the same in its place."""

    number: int


class TunnelProvider(Protocol):
    """What gives tunnels. One is open for the whole life of the daemon."""

    name: str

    def open(self, entrance: Entrance) -> AbstractAsyncContextManager[Tunnel]:
        """A tunnel to an entrance. Leaving the block, cancelled or not, takes the URL away before it returns.

        Raises `TunnelError` where there is none to be had.
        """
