"""Sessions without the HTTP API, a tunnel provider that says what happens to it, and what a session leaves behind."""

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import trio

from daemon.agent.models import open_models
from daemon.journal.journal import Frames, Journal
from daemon.journal.store import Store
from daemon.services import open_services
from daemon.sessions.registry import Registry, open_registry
from daemon.testing import test_config as make_config
from tests.support import children, descriptors, kinds
from tunnel import Entrance, Tunnel, TunnelProvider
from tunnel.local import LocalProvider


class Tunnels:
    """A tunnel provider of the tests' own: each URL is a forwarding port, and `record` says what happened in order."""

    name = "ngrok"

    def __init__(self) -> None:
        self.record: list[str] = []
        self.ports: list[int] = []  # of the sessions, in the order of opening
        self.alive: set[str] = set()  # URLs

    @asynccontextmanager
    async def open(self, entrance: Entrance) -> AsyncIterator[Tunnel]:
        port = entrance.number
        self.ports.append(port)
        url = ""
        try:
            async with open_services() as services:  # it stands until it is left, also while its session is cancelled
                listeners = await services.start(
                    partial(trio.serve_tcp, partial(self._forward, port), 0, host="127.0.0.1")
                )
                url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
                self.alive.add(url)
                self.record.append("opened")
                try:
                    yield Tunnel(url)
                finally:
                    self.record.append("closing while the port " + ("answers" if answers(port) else "is gone"))
        finally:
            if url:
                self.alive.discard(url)
                self.record.append("closed")

    async def _forward(self, port: int, near: trio.SocketStream) -> None:
        self.record.append("asked")
        far = await trio.open_tcp_stream("127.0.0.1", port)
        async with near, far, trio.open_nursery() as both:

            async def pump(source: trio.SocketStream, sink: trio.SocketStream) -> None:
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    async for data in source:
                        await sink.send_all(data)
                both.cancel_scope.cancel()

            both.start_soon(pump, near, far)
            both.start_soon(pump, far, near)


class Crashes(Tunnels):
    """Loses one session's tunnel while it runs, in a task of its own."""

    def __init__(self, error: Exception, *, which: int = 0) -> None:
        super().__init__()
        self.crash = trio.Event()
        self._error = error
        self._which = which

    @asynccontextmanager
    async def open(self, entrance: Entrance) -> AsyncIterator[Tunnel]:
        mine = len(self.ports) == self._which

        async def watch() -> None:
            await self.crash.wait()
            if mine:
                raise self._error

        async with super().open(entrance) as tunnel, trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            yield tunnel
            nursery.cancel_scope.cancel()


class LeadsNowhere(Tunnels):
    """Gives a URL at which nobody answers, or the wrong one does."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url

    @asynccontextmanager
    async def open(self, entrance: Entrance) -> AsyncIterator[Tunnel]:
        self.ports.append(entrance.number)
        yield Tunnel(self._url)


def answers(port: int) -> bool:
    """Whether anything listens on a port; asked without giving any task a turn."""
    with socket.socket() as asking:
        asking.settimeout(1)
        return asking.connect_ex(("127.0.0.1", port)) == 0


@asynccontextmanager
async def open_sessions(
    state_dir: Path, tunnels: TunnelProvider | None = None, **settings: Any
) -> AsyncIterator[Registry]:
    """The sessions of a daemon without its HTTP API; whatever is done with them has an end."""
    config = make_config(state_dir, **settings)
    state_dir.mkdir(exist_ok=True)
    with trio.fail_after(20), closing(Store(state_dir / "footlight.db")) as store:
        async with (
            open_models(config) as models,
            open_registry(config, store, tunnels or LocalProvider(), models) as registry,
        ):
            await models.client("scripted")  # what it has open is the daemon's, not a session's
            yield registry


def write_script(folder: Path, turns: str) -> Path:
    """A script for the scripted model, of these turns."""
    path = folder / "script.toml"
    path.write_text(f'name = "test"\n{turns}')
    return path


async def history(registry: Registry, session_id: str) -> list[dict[str, Any]]:
    """What the journal of a session holds."""
    async with registry.history(session_id) as journal:
        return _events_of(journal)


async def journaled_until(registry: Registry, session_id: str, kind: str, count: int = 1) -> list[dict[str, Any]]:
    """What a live session's journal holds once it has so many events of a kind."""
    async with registry.history(session_id) as journal:
        while kinds(found := _events_of(journal)).count(kind) < count:
            assert not journal.ended, f"{kinds(found)} and no {kind}"
            await journal.wait_change()
        return found


def _events_of(journal: Journal) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while (chunk := journal.read(len(found))) is not None:
        assert isinstance(chunk, Frames)
        found += [msgspec.json.decode(payload) for payload in journal.payloads(len(found), chunk)]
    return found


async def nothing_left(before: tuple[set[tuple[str, str]], set[str], int]) -> None:
    """Return once descriptors and children are what they were; the model's end of a cut connection may need a step more."""
    with trio.fail_after(2):
        while descriptors() - before[0] or children() - before[1]:
            await trio.sleep(0.001)


class _AtStep(trio.abc.Instrument):
    def __init__(self, task: trio.lowlevel.Task, at: int, act: Callable[[], object]) -> None:
        self.count = 0
        self._task, self._at, self._act = task, at, act

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self.count += 1
            if self.count == self._at:
                self._act()


async def at_step(at: int, act: Callable[[], object], body: Callable[[], Awaitable[object]]) -> int:
    """Run `body` in this task and do something right before one of its steps; the number of steps it took."""
    steps = _AtStep(trio.lowlevel.current_task(), at, act)
    trio.lowlevel.add_instrument(steps)
    try:
        await body()
    finally:
        trio.lowlevel.remove_instrument(steps)
    return steps.count


class Watch(trio.abc.Instrument):
    """Looks at a session after every step of every task; what it saw is in `seen`."""

    def __init__(self, look: Callable[[], object]) -> None:
        self.seen: list[object] = []
        self._look = look

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        found = self._look()
        if not self.seen or self.seen[-1] != found:
            self.seen.append(found)


@contextmanager
def watching(look: Callable[[], object]) -> Iterator[list[object]]:
    """Everything that `look` saw, without repetitions, while the block ran."""
    watch = Watch(look)
    trio.lowlevel.add_instrument(watch)
    try:
        yield watch.seen
    finally:
        trio.lowlevel.remove_instrument(watch)
