"""What several test files share: clients over real sockets, and looking for what was left behind."""

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from daemon.clients.follow import open_client


@asynccontextmanager
async def api(url: str) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=url, timeout=10, trust_env=False) as client:
        yield client


async def next_event(ws: WebSocketConnection) -> dict[str, Any]:
    event: dict[str, Any] = msgspec.json.decode(await ws.get_message())
    return event


async def events_until(ws: WebSocketConnection, done: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """Everything up to and with the first event for which `done` holds."""
    found = []
    while True:
        found.append(await next_event(ws))
        if done(found[-1]):
            return found


async def all_events(url: str, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
    """Everything until the close, and its code."""
    found = []
    async with open_client(f"{url}&offset={offset}") as ws:
        try:
            while True:
                found.append(await next_event(ws))
        except ConnectionClosed as closed:
            return found, closed.reason.code if closed.reason else 1006


def journaled(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if "offset" in event]


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["event"] for event in events]


def descriptors() -> set[tuple[str, str]]:
    """What this process has open; Trio's and the test runner's own descriptors are the same before and after."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.add((entry.name, str(entry.readlink())))
        except FileNotFoundError:
            continue
    return found


def children() -> set[str]:
    """The processes that this one has."""
    found: set[str] = set()
    for task in Path("/proc/self/task").iterdir():
        try:
            found |= set((task / "children").read_text().split())
        except FileNotFoundError:
            continue
    return found


def leftovers() -> tuple[set[tuple[str, str]], set[str], int]:
    """Descriptors, children and listening sockets at once; compare before and after."""
    return descriptors(), children(), threading.active_count()


class _Steps(trio.abc.Instrument):
    """Counts the steps of one task, and cancels a scope at one of them."""

    def __init__(self, at: int | None) -> None:
        self.count = 0
        self.scope = trio.CancelScope()
        self._at = at
        self.task: Any = None

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.count += 1
            if self.count == self._at:
                self.scope.cancel()


async def steps_of(body: Callable[[], Any], at: int | None = None) -> int:
    """Run `body`, cancelled at its step `at` (not at all for None); the number of steps it took."""
    steps = _Steps(at)
    steps.task = trio.lowlevel.current_task()
    trio.lowlevel.add_instrument(steps)
    try:
        with steps.scope:
            await body()
    finally:
        trio.lowlevel.remove_instrument(steps)
    return steps.count
