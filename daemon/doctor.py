"""`footlight doctor`: whether everything that the settings need is there, one line each, and what to do where it is not."""

import os
import shutil
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from enum import StrEnum
from tempfile import TemporaryFile

import msgspec
import trio

from daemon.agent.models import SCRIPTED, open_models
from daemon.config import MB, Config
from daemon.errors import CallerError, ModelError, first_cause
from daemon.main import check as check_settings
from tunnel import TunnelError
from tunnel.install import find_binary, installed_path, require_authtoken, version_of
from tunnel.patience import Patience

Check = Callable[[Config], Awaitable[str]]

_LITTLE_SPACE = 1024 * MB
_NOT_TRIED = "not tried: see above"


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
    for name, check in _checks(config, install=install).items():
        try:
            finding = Finding(name, State.ok, await check(config))
        except _Unwell as unwell:
            finding = Finding(name, *unwell.finding)
        except (TunnelError, CallerError, ModelError, ExceptionGroup) as error:
            cause = first_cause(error)
            if not isinstance(cause, (TunnelError, CallerError, ModelError)):
                raise
            finding = Finding(name, State.fail, cause.detail)
        tell(finding)
        worst |= finding.state is State.fail
    return worst


def _checks(config: Config, *, install: bool) -> dict[str, Check]:
    """What these settings need, in the order in which it is said."""
    checks: dict[str, Check] = {"key": _key, "model": _model}
    if install:
        checks |= {"ngrok download": _download}
    if config.tunnel in {"local", "static"}:
        checks |= {"tunnel": _without_ngrok}
    else:
        checks |= {"ngrok agent": _agent, "ngrok authtoken": _authtoken, "ngrok account": _account}
    return {**checks, "disk": _disk}


async def _download(_: Config) -> str:
    from tunnel.calls import install  # noqa: PLC0415  # pyngrok is for those who need it

    path = installed_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    with redirect_stdout(sys.stderr):  # pyngrok shows its progress there
        await trio.to_thread.run_sync(install, str(path))
    return f"{await version_of(path)} at {path}"


async def _key(config: Config) -> str:
    if config.model == SCRIPTED:
        return "the scripted model needs none"
    async with open_models(config) as models:
        models.refuse_unusable(config.model)
    return "ANTHROPIC_API_KEY is set"


async def _model(config: Config) -> str:
    if config.model != SCRIPTED and not config.anthropic_api_key:
        raise _Unwell(_NOT_TRIED, needed=False)
    async with open_models(config) as models:
        return await models.check(config.model)


async def _without_ngrok(config: Config) -> str:
    if config.tunnel == "local":
        return "local: sessions get loopback URLs"
    check_settings(config)
    return f"static: lead {config.public_url} to 127.0.0.1:{config.shared_port}"


async def _agent(config: Config) -> str:
    with _for_ngrok(config):
        binary = find_binary()
        return f"{await version_of(binary)} at {binary}"


async def _authtoken(config: Config) -> str:
    with _for_ngrok(config):
        require_authtoken(config.ngrok_authtoken)
        return "NGROK_AUTHTOKEN is set" if config.ngrok_authtoken else "found in ngrok's own configuration"


async def _account(config: Config) -> str:
    from tunnel.checkup import try_account  # noqa: PLC0415  # pyngrok is for those who need it

    try:
        find_binary()
        require_authtoken(config.ngrok_authtoken)
    except TunnelError:
        raise _Unwell(_NOT_TRIED, needed=False) from None
    account = await try_account(config.ngrok_authtoken, _Silent(), Patience(open=config.tunnel_open))
    if account.several or config.tunnel != "ngrok":
        way = "each session gets one of its own" if account.several else "sessions share it, a path each"
        return f"a public URL answered after {account.seconds:.1f} s; {way}"
    raise _Unwell(account.reason)


@contextmanager
def _for_ngrok(config: Config) -> Iterator[None]:
    """What is missing is needed only where ngrok was asked for by name."""
    try:
        yield
    except TunnelError as error:
        if config.tunnel != "auto" or error.code not in {"ngrok_missing", "ngrok_no_token"}:
            raise
        raise _Unwell(f"{error.detail}; without it sessions get loopback URLs", needed=False) from None


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
