"""`footlight doctor`: whether everything that the settings need is there, one line each, and what to do where it is not."""

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from enum import StrEnum
from tempfile import TemporaryFile

import msgspec
import trio

from daemon.agent.models import SCRIPTED, open_models
from daemon.config import MB, Config
from daemon.errors import CallerError, ModelError
from daemon.workspace.spawning import try_sandbox
from tunnel import TunnelError
from tunnel.install import find_authtoken, find_binary, installed_path, version_of
from tunnel.patience import Patience

_LITTLE_SPACE = 1024 * MB


class State(StrEnum):
    """How it stands."""

    ok = "ok"
    note = "note"  # it works without, and the line says how
    fail = "fail"


class Finding(msgspec.Struct, frozen=True):
    """One line."""

    name: str
    state: State
    detail: str


class _Unwell(Exception):
    """What a check found to be missing."""

    def __init__(self, detail: str, *, needed: bool = True) -> None:
        super().__init__(detail)
        self.finding = State.fail if needed else State.note, detail


async def run_doctor(config: Config, tell: Callable[[Finding], object], install: bool) -> int:
    """Check everything and say so as it is found; the exit code. Cancelled, nothing of a check is left.

    With `install`, the ngrok agent is downloaded first.
    """
    worst = 0
    checks = {"ngrok download": _download, **_CHECKS} if install else _CHECKS
    for name, check in checks.items():
        try:
            finding = Finding(name, State.ok, await check(config))
        except _Unwell as unwell:
            finding = Finding(name, *unwell.finding)
        except (TunnelError, CallerError, ModelError) as error:
            finding = Finding(name, State.fail, error.detail)
        tell(finding)
        worst |= finding.state is State.fail
    return worst


async def _download(_: Config) -> str:
    from tunnel.calls import install  # noqa: PLC0415  # pyngrok is for those who need it

    path = installed_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    await trio.to_thread.run_sync(install, str(path))
    return f"{await version_of(path)} at {path}"


async def _key(config: Config) -> str:
    if config.model == SCRIPTED:
        return "the scripted model needs none"
    async with open_models(config) as models:
        models.refuse_unusable(config.model)
    return "ANTHROPIC_API_KEY is set"


async def _model(config: Config) -> str:
    async with open_models(config) as models:
        return await models.check(config.model)


async def _ngrok_agent(config: Config) -> str:
    async with _for_ngrok(config):
        binary = find_binary()
        return f"{await version_of(binary)} at {binary}"


async def _ngrok_authtoken(config: Config) -> str:
    async with _for_ngrok(config):
        if find_authtoken(config.ngrok_authtoken) is None:
            raise TunnelError(
                "ngrok_no_token", "none is configured; copy yours from https://dashboard.ngrok.com into NGROK_AUTHTOKEN"
            )
        return "NGROK_AUTHTOKEN is set" if config.ngrok_authtoken else "found in ngrok's own configuration"


async def _ngrok_account(config: Config) -> str:
    async with _for_ngrok(config):
        find_binary()
        from tunnel.checkup import try_account  # noqa: PLC0415  # pyngrok is for those who need it

        account = await try_account(config.ngrok_authtoken, _Silent(), Patience(open=config.tunnel_open))
    if account.several or config.tunnel != "ngrok":
        way = "each session gets one of its own" if account.several else "sessions share it, a path each"
        return f"a public URL answered after {account.seconds:.1f} s; {way}"
    raise _Unwell(account.reason)


@asynccontextmanager
async def _for_ngrok(config: Config) -> AsyncIterator[None]:
    """What is missing is needed only where ngrok was asked for by name."""
    if config.tunnel in {"local", "static"}:
        raise _Unwell(f"not used: --tunnel {config.tunnel}", needed=False)
    try:
        yield
    except TunnelError as error:
        if config.tunnel != "auto" or error.code not in {"ngrok_missing", "ngrok_no_token"}:
            raise
        raise _Unwell(f"{error.detail}; without it sessions get loopback URLs", needed=False) from None


async def _sandbox(config: Config) -> str:
    if config.sandbox == "none":
        raise _Unwell("--sandbox none: commands run as this user, with all its files and its network", needed=False)
    refusal = await try_sandbox(config)
    if refusal is not None:
        raise _Unwell(
            f"agents can run no commands here: {refusal}; install bubblewrap 0.8 or newer and allow user namespaces, or choose "
            "--sandbox none"
        )
    said = "a shell without network, host files, capabilities and system calls that it does not need"
    return "a shell that reaches the network (--sandbox-network)" if config.sandbox_network else said


async def _disk(config: Config) -> str:
    try:
        config.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        with TemporaryFile(dir=config.state_dir) as file:
            os.fsync(file.fileno())
    except OSError as error:
        raise _Unwell(
            f"the state directory {config.state_dir} cannot be used: {error.strerror}; set --state-dir"
        ) from None
    free = shutil.disk_usage(config.state_dir).free
    said = f"{free // MB} MB free at {config.state_dir}"
    if free < _LITTLE_SPACE:
        raise _Unwell(f"{said}; a session ends when its journal cannot be written: make room", needed=False)
    return said


class _Silent:
    """What a provider does is not news here: how it ends is."""

    def info(self, event: str, **facts: object) -> None:
        pass

    def warning(self, event: str, **facts: object) -> None:
        pass


_CHECKS: dict[str, Callable[[Config], Awaitable[str]]] = {
    "key": _key,
    "model": _model,
    "ngrok agent": _ngrok_agent,
    "ngrok authtoken": _ngrok_authtoken,
    "ngrok account": _ngrok_account,
    "sandbox": _sandbox,
    "disk": _disk,
}
