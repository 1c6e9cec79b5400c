"""Which provider a daemon gets its URLs from."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tunnel import Log, TunnelError, TunnelProvider
from tunnel.install import find_authtoken, find_binary
from tunnel.local import LocalProvider
from tunnel.patience import Patience
from tunnel.shared import Mounts, open_shared, static_base

OpenMounts = Callable[[int], AbstractAsyncContextManager[Mounts]]


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What decides, and what the providers need."""

    name: str  # auto, ngrok, ngrok-shared, static or local
    folder: Path  # where the agent's files go
    authtoken: str | None = None
    public_url: str | None = None
    shared_port: int = 0  # of the listener below a proxy of one's own
    patience: Patience = Patience()


@asynccontextmanager
async def open_provider(wishes: Wishes, open_mounts: OpenMounts, log: Log) -> AsyncIterator[TunnelProvider]:
    """The provider. Leaving ends whatever it runs. Raises `TunnelError` where it cannot work at all."""
    name = _without_ngrok(wishes, log) if wishes.name == "auto" else wishes.name
    if name == "local":
        yield LocalProvider()
    elif name == "static":
        async with (
            open_mounts(wishes.shared_port) as mounts,
            open_shared(name, mounts, partial(static_base, wishes.public_url or "")) as provider,
        ):
            yield provider
    else:
        from tunnel.either import open_either  # noqa: PLC0415  # pyngrok is for those who need it
        from tunnel.ngrok import NgrokProvider, open_ngrok  # noqa: PLC0415

        async with open_ngrok(wishes.folder, wishes.authtoken, log, wishes.patience) as agent:
            if name == "ngrok":
                yield NgrokProvider(agent)
                return
            async with open_mounts(0) as mounts:
                if name == "ngrok-shared":
                    base = partial(agent.endpoint, mounts.number)
                    async with open_shared("ngrok", mounts, base) as provider:
                        yield provider
                else:
                    async with open_either(agent, mounts, log) as provider:
                        yield provider


def _without_ngrok(wishes: Wishes, log: Log) -> str:
    """`local` where ngrok is not configured, with the reason in the log; else `auto` as it was."""
    if find_authtoken(wishes.authtoken) is None:
        log.info("tunnel_chosen", provider="local", reason="no ngrok authtoken is configured")
        return "local"
    try:
        find_binary()
    except TunnelError as error:
        log.warning("tunnel_chosen", provider="local", reason=error.detail)
        return "local"
    return "auto"
