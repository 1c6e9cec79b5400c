"""A public URL through ngrok: one agent per daemon, one endpoint per session."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from tunnel import Entrance, Log, Tunnel
from tunnel.agent import Agent, open_agent
from tunnel.install import find_binary, require_authtoken, version_of, write_config
from tunnel.leash import open_leash
from tunnel.patience import Patience


class NgrokProvider:
    """Gives each session an endpoint of its own."""

    name = "ngrok"

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def open(self, entrance: Entrance) -> AbstractAsyncContextManager[Tunnel]:
        """An endpoint. A URL that another session has is refused: their traffic would be mixed."""
        return self._agent.endpoint(entrance.number)


@asynccontextmanager
async def open_ngrok(
    folder: Path, authtoken: str | None, log: Log, patience: Patience | None = None
) -> AsyncIterator[Agent]:
    """The agent, started in the background. Raises `TunnelError` at once where it could never start.

    Leaving ends it. An agent that an earlier daemon left behind in the same folder is ended first.
    """
    secret, binary = require_authtoken(authtoken), find_binary()
    patience = patience or Patience()
    with open_leash(folder, binary) as leash:
        stale = await leash.end(patience.stop)
        if stale:
            log.warning("tunnel_stale", processes=stale)
        version = await version_of(binary)
        log.info("tunnel_agent", version=version, binary=str(binary))
        write_config(leash.config, secret)
        try:
            async with open_agent(leash, secret, log, patience) as agent:
                yield agent
        finally:
            leash.config.unlink(missing_ok=True)  # the authtoken
