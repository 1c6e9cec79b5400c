"""ngrok as an account allows it, which nothing but the URLs it gives can tell."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from tunnel import Entrance, Log, Tunnel, TunnelError, TunnelProvider
from tunnel.agent import Agent
from tunnel.ngrok import NgrokProvider
from tunnel.shared import Mounts, SharedProvider, kept
from tunnel.wanted import Wanted

# What an account with one URL for everything answers to a second endpoint.
ONE_URL = frozenset({
    "ngrok_same_url", "ERR_NGROK_324", "ERR_NGROK_334", "ERR_NGROK_18021", "ERR_NGROK_313", "ERR_NGROK_314",
    "ERR_NGROK_15013",
})  # fmt: skip


class EitherProvider:
    """ngrok as the account allows it: a URL for each session, or one for all of them."""

    name = "ngrok"

    def __init__(self, agent: Agent, mounts: Mounts, log: Log) -> None:
        self._agent = agent
        self._mounts = mounts
        self._log = log
        self._chosen = Wanted[TunnelProvider]()

    async def decide(self) -> None:
        """Find out, by the URLs that two endpoints get; then keep the first one if there is only one. Until cancelled."""
        while True:
            try:
                async with self._agent.endpoint(self._mounts.number) as base:
                    several, reason = await allows_urls_per_session(self._agent, self._mounts)
                    if not several:
                        self._log.info("tunnel_chosen", provider="ngrok-shared", reason=reason)
                        await self._share(base)
                self._log.info("tunnel_chosen", provider="ngrok", reason=reason)
                self._chosen.have(NgrokProvider(self._agent))
                return
            except TunnelError as error:
                await self._chosen.lack(error)

    async def _share(self, base: Tunnel) -> None:
        shared = SharedProvider(self.name, self._mounts)
        self._chosen.have(shared)
        await shared.keep(partial(self._again, [base]))

    @asynccontextmanager
    async def _again(self, first: list[Tunnel]) -> AsyncIterator[Tunnel]:
        """The URL that is open already, the first time; then another one."""
        if first:
            yield first.pop()
        else:
            async with self._agent.endpoint(self._mounts.number) as tunnel:
                yield tunnel

    @asynccontextmanager
    async def open(self, entrance: Entrance) -> AsyncIterator[Tunnel]:
        """A tunnel of whichever kind it is."""
        provider = await self._chosen.get(self._agent.patience.open)
        async with provider.open(entrance) as tunnel:
            yield tunnel


async def allows_urls_per_session(agent: Agent, entrance: Entrance) -> tuple[bool, str]:
    """Whether an account gives a second URL beside a first one that is open, and what it said."""
    try:
        async with agent.endpoint(entrance.number):
            return True, "the account gives each session a URL of its own"
    except TunnelError as error:
        if error.code in ONE_URL:
            return False, error.detail
        raise


@asynccontextmanager
async def open_either(agent: Agent, mounts: Mounts, log: Log) -> AsyncIterator[EitherProvider]:
    """The provider; it decides in the background. Leaving closes what it keeps open."""
    either = EitherProvider(agent, mounts, log)
    async with kept(either.decide):
        yield either
