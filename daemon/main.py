"""One daemon: what it is made of, in order, and when it ends."""

import fcntl
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path

import apsw
import trio

from daemon.agent.models import SCRIPTED, open_models
from daemon.agent.request import thinking_of
from daemon.api.app import build_app
from daemon.api.guard import is_loopback
from daemon.api.hot import Hot
from daemon.api.server import ApiConnections
from daemon.clients.mounts import open_mounts
from daemon.config import Config
from daemon.errors import ConfigError, first_cause
from daemon.journal.store import Store
from daemon.log import log
from daemon.services import open_services
from daemon.serving import Server, open_listeners, port_of
from daemon.sessions.registry import Registry, open_registry
from daemon.workspace.spawning import try_sandbox
from tunnel import TunnelError, TunnelProvider
from tunnel.choose import Wishes, open_provider
from tunnel.patience import Patience

INTERRUPTED = 130  # the exit code of whatever Ctrl+C ended

# s: the launcher of the single binary passes on each signal, which a terminal or a supervisor has sent to both of them.
_SAME_SIGNAL = 1.0 if getattr(sys, "frozen", False) else 0.0


@dataclass(frozen=True)
class Daemon:
    """A running daemon, for whoever opened it."""

    url: str
    registry: Registry


@asynccontextmanager
async def open_daemon(config: Config) -> AsyncIterator[Daemon]:
    """A whole daemon, listening.

    Leaving ends the sessions first, while the API still answers, then the API, each within its grace; nothing of it is left.
    Raises `ConfigError` where it cannot start.
    """
    check(config)
    with _config_error_alone(), lock_state_dir(config.state_dir), _database(config) as store:
        async with (
            _listen(config) as listeners,  # first: whatever else is started would be for nothing
            open_services() as services,
            open_models(config) as models,
            open_services() as warming,  # gone before the models, which it may be opening
            _open_tunnels(config) as tunnels,
            open_registry(config, store, tunnels, models) as registry,
        ):
            services.start_soon(store.run_checkpoints)
            hot = Hot(build_app(registry, config), registry, config)
            connections = ApiConnections(hot, config, hot)
            server = Server(
                connections.handle,
                max_connections=config.max_connections,
                user_timeout=config.user_timeout,
                grace=config.api_grace,
                on_drain=connections.close_idle,
            )
            await services.start(server.serve, listeners)
            warming.start_soon(models.warm_up)
            host = f"[{config.host}]" if ":" in config.host else config.host
            yield Daemon(f"http://{host}:{port_of(listeners)}", registry)


@asynccontextmanager
async def _open_tunnels(config: Config) -> AsyncIterator[TunnelProvider]:
    """The provider of URLs; one that could never give any is a `ConfigError`."""
    wishes = Wishes(
        name=config.tunnel,
        folder=config.state_dir / "ngrok",
        authtoken=config.ngrok_authtoken,
        public_url=config.public_url,
        shared_port=config.shared_port,
        patience=Patience(open=config.tunnel_open, restore=config.tunnel_restore, check=config.tunnel_check),
    )
    async with AsyncExitStack() as stack:
        try:
            provider = await stack.enter_async_context(open_provider(wishes, partial(open_mounts, config), log))
        except TunnelError as error:
            raise ConfigError(f"--tunnel {config.tunnel} cannot work: {error.detail} ({error.code})") from None
        except OSError as error:
            raise ConfigError(f"--tunnel {config.tunnel} cannot work: {error.strerror}; set --shared-port") from None
        yield provider


async def run_daemon(config: Config, use: Callable[[Daemon], Awaitable[int]]) -> int:
    """Run a daemon for as long as `use` takes, or until a signal; what `use` returned, 130 after SIGINT, else 0.

    SIGTERM is how a supervisor has a service done, SIGHUP says that its terminal is gone; Ctrl+C interrupts, as it does any command.
    The end takes at most `shutdown_grace`, whatever clients do; a second signal ends the process at once.
    """
    using, code = trio.CancelScope(), 0

    async def watch(signals: AsyncIterator[int]) -> None:
        nonlocal code
        asked = inf
        async for number in signals:
            if trio.current_time() >= asked + _SAME_SIGNAL:
                os._exit(INTERRUPTED)  # every file is written as it is appended to; nothing else may take its time now
            if asked == inf and number == signal.SIGINT:
                code = INTERRUPTED
            asked = min(asked, trio.current_time())
            using.cancel()

    with trio.open_signal_receiver(*_ending_signals()) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, signals)
            nursery.start_soon(_tell_of_sandbox, config)
            async with open_daemon(config) as daemon:
                if config.model == SCRIPTED:
                    log.info("scripted")
                elif not config.anthropic_api_key:
                    log.warning("no_key", model=config.model)
                with using:
                    code = await use(daemon)
                log.info("shutdown", sessions=daemon.registry.counts()["sessions"], grace=f"{config.shutdown_grace:g}")
            nursery.cancel_scope.cancel()
    if _SAME_SIGNAL:  # the launcher's copy of the signal may come when the handler is gone
        for number in _ending_signals():
            signal.signal(number, signal.SIG_IGN)
    return code


def _ending_signals() -> list[signal.Signals]:
    """Those that end the daemon in order; a hang-up that is ignored, as by nohup, stays so."""
    ending = [signal.SIGINT, signal.SIGTERM]
    return ending if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [*ending, signal.SIGHUP]


async def _tell_of_sandbox(config: Config) -> None:
    """Warn at the start of what is unusual about agents' commands."""
    if config.sandbox == "none":
        log.warning("sandbox_none")
    elif config.sandbox_network:
        log.warning("sandbox_network")
    built_in = config.model == SCRIPTED and config.script is None  # which runs no command
    if not built_in and (refusal := await try_sandbox(config)) is not None:
        log.warning("sandbox_unusable", detail=refusal)


def check(config: Config) -> None:
    """Refuse settings that cannot work or would be unsafe."""
    if not is_loopback(config.host) and not config.api_token:
        raise ConfigError(
            f"--host {config.host} can be reached from other machines: set --api-token, or bind 127.0.0.1"
        )
    if config.tunnel == "static" and not re.fullmatch(r"https?://[^/?#\s]+(/[^?#\s]*)?", config.public_url or ""):
        raise ConfigError("--tunnel static needs the URL of your proxy: --public-url https://demo.example.com")
    for origin in config.allow_origin:
        if not re.fullmatch(r"https?://[^/*\s]+", origin):
            raise ConfigError(f"--allow-origin {origin} is no origin; it looks like https://example.com, exactly")
    thinking_of(config)


@contextmanager
def _config_error_alone() -> Iterator[None]:
    """What says why the daemon cannot start comes out of the nurseries as itself."""
    try:
        yield
    except BaseExceptionGroup as group:
        only, others = group.split(ConfigError)
        if only is None or others is not None:
            raise
        raise first_cause(only) from None


@contextmanager
def lock_state_dir(folder: Path) -> Iterator[None]:
    """One daemon per state directory, held by the kernel: a crash frees it."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"the state directory {folder} cannot be used: {error.strerror}") from None
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(
                f"another footlight uses the state directory {folder}; stop it or set --state-dir"
            ) from None
        yield
    finally:
        os.close(fd)


@contextmanager
def _database(config: Config) -> Iterator[Store]:
    path = config.state_dir / "footlight.db"
    try:
        store = Store(path)
    except apsw.Error as error:
        raise ConfigError(f"the database {path} cannot be used: {error}") from None
    with closing(store):
        yield store


@asynccontextmanager
async def _listen(config: Config) -> AsyncIterator[list[trio.SocketListener]]:
    try:
        listeners = await open_listeners(config.host, config.port, config.backlog)
    except (OSError, UnicodeError) as error:  # a host that cannot be a name is a UnicodeError
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"cannot listen on {config.host} port {config.port}: {reason}; set --host and --port"
        ) from None
    try:
        yield listeners
    finally:
        for listener in listeners:
            listener.socket.close()
