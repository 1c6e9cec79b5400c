"""The end of the daemon, whatever its clients do: its exit code within the grace, everybody told, nothing left."""

import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
import trio

from daemon.clients.follow import open_client
from tests.support import all_events, api, events_until, kinds
from tests.system.processes import (
    Footlight,
    processes_of_session,
    refuses,
    serving,
    start_long_session,
    start_session,
    unsent,
)

GRACE = 5.0  # s: Config.shutdown_grace
MARGIN = 2.0  # s: the interpreter's own end, and a busy machine
CODES = {signal.SIGTERM: 0, signal.SIGHUP: 0, signal.SIGINT: 130}  # done, and interrupted
# An idle daemon shows that both signals end it alike; the others cost seconds each.
ONE_SIGNAL = pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])


async def ends_clean(footlight: Footlight, number: signal.Signals, *ports: int) -> None:
    began = time.monotonic()
    footlight.process.send_signal(number)
    assert await footlight.wait(GRACE + MARGIN + 5) == CODES[number], footlight.log.read_text()
    assert time.monotonic() - began < GRACE + MARGIN
    assert processes_of_session(footlight.process.pid) == []
    for port in (footlight.port, *ports):
        assert await refuses(port)
    assert "Traceback" not in footlight.log.read_text()


@asynccontextmanager
async def stalled(port: int, head: str) -> AsyncIterator[socket.socket]:
    """A client that sends its request and then takes nothing: its window is closed by the first bytes."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", port))
        client.sendall(head.replace("\n", "\r\n").encode())
        mine = client.getsockname()[1]
        while unsent(port, mine) < 10_000:
            await trio.sleep(0.01)
        yield client


@SIGNALS
async def test_idle_daemon_ends(tmp_path, number):
    with trio.fail_after(60):
        async with serving(tmp_path / "state") as footlight:
            await ends_clean(footlight, number)
            assert "[API] Shutting down: 0 session(s)" in footlight.log.read_text()


@ONE_SIGNAL
async def test_busy_session_is_ended_and_its_clients_are_told(tmp_path, number):
    told = []

    async def follow(url: str) -> None:
        told.append(await all_events(url))

    with trio.fail_after(60):
        async with (
            serving(tmp_path / "state", "--script-pace", "1") as footlight,
            api(footlight.url) as client,
            trio.open_nursery() as nursery,
        ):
            view = await start_session(client)
            for url in (view["websocket_url"], view["watch_url"]):
                nursery.start_soon(follow, url)
            async with open_client(view["websocket_url"]) as ws:
                await events_until(ws, lambda event: event["event"] == "claude_text_delta")
            await ends_clean(footlight, number, urlsplit(view["websocket_url"]).port)
    assert len(told) == 2
    for events, code in told:
        assert code == 1001
        assert kinds(events)[-1] == "session_end"
        assert events[-1]["data"]["reason"] == "shutdown"
        assert "turn_complete" in kinds(events)


async def test_stalled_websocket_client_does_not_hold_up_the_end(tmp_path):
    told = []

    async def follow(url: str, offset: int) -> None:
        told.append(await all_events(url, offset=offset))

    with trio.fail_after(60):
        async with (
            serving(tmp_path / "state") as footlight,
            api(footlight.url) as client,
            trio.open_nursery() as nursery,
        ):
            view = await start_long_session(client)
            parts = urlsplit(view["websocket_url"])
            head = (
                f"GET /ws?{parts.query} HTTP/1.1\nHost: {parts.netloc}\nConnection: Upgrade\nUpgrade: websocket\n"
                "Sec-WebSocket-Version: 13\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\n\n"
            )
            async with stalled(parts.port, head):
                nursery.start_soon(follow, view["watch_url"], 80)
                await footlight.logged("total clients: 2")
                await ends_clean(footlight, signal.SIGTERM, parts.port)
    assert [(kinds(events)[-1], code) for events, code in told] == [("session_end", 1001)]


@ONE_SIGNAL
async def test_stalled_event_stream_does_not_hold_up_the_end(tmp_path, number):
    with trio.fail_after(60):
        async with serving(tmp_path / "state") as footlight, api(footlight.url) as client:
            view = await start_long_session(client)
            async with stalled(footlight.port, _follow(footlight, view)):
                await ends_clean(footlight, number, urlsplit(view["websocket_url"]).port)


async def test_second_signal_ends_at_once(tmp_path):
    with trio.fail_after(60):
        async with serving(tmp_path / "state") as footlight, api(footlight.url) as client:
            view = await start_long_session(client)
            async with stalled(footlight.port, _follow(footlight, view)):  # so that the first one takes a while
                footlight.process.send_signal(signal.SIGTERM)
                await footlight.logged("Shutting down")
                began = time.monotonic()
                footlight.process.send_signal(signal.SIGINT)
                assert await footlight.wait(5) == 130
                assert time.monotonic() - began < 0.5


def _follow(footlight: Footlight, view: dict[str, Any]) -> str:
    path = f"/api/sessions/{view['session_id']}/events"
    return f"GET {path} HTTP/1.1\nHost: 127.0.0.1:{footlight.port}\nAccept: text/event-stream\n\n"
