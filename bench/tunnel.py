"""Sessions with public URLs, through pyngrok and the stand-in for ngrok's agent, cloud and edge."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx2
import trio

from bench.report import Figure, Table, percentile
from daemon import log
from daemon.testing import open_test_daemon
from tests.standins.cloud import Cloud, open_cloud

_WORD = 'name = "word"\n[[turn]]\n[[turn.step]]\ntext = "Hello."\n'
_AT_ONCE = 20


def measure(quick: bool) -> Table:
    """One after the other, and twenty at once; POST with and without an agent."""
    log.configure("text", quiet=True)
    rounds, count = (2, 20) if quick else (3, 200)
    ready, ended, mixed, opened_at_once, ended_at_once, up, down = trio.run(_measure, rounds, count)
    figures = [
        Figure(f"URL ready, {count} sessions in sequence: p50", [percentile(ready, 0.5)], "ms"),
        Figure(f"URL ready, {count} sessions in sequence: p99", [percentile(ready, 0.99)], "ms"),
        Figure("DELETE answered, URL gone: p50", [percentile(ended, 0.5)], "ms"),
        Figure(f"{_AT_ONCE} sessions opened at once, all URLs ready", opened_at_once, "ms"),
        Figure(f"{_AT_ONCE} sessions ended at once, all URLs gone", ended_at_once, "ms"),
        Figure("Sessions that had another one's URL", [mixed], "", at_most=0),
        Figure("POST answered, agent up: p50", [percentile(up, 0.5)], "ms"),
        Figure("POST answered, agent down: p50", [percentile(down, 0.5)], "ms"),
    ]
    how = (
        "A whole daemon with `--tunnel ngrok`, in the process of the stand-in's cloud and edge, real pyngrok, an agent process. "
        "The scripted model says one word. What ngrok's own cloud takes comes on top."
    )
    return Table("Public URLs through ngrok", how, figures)


async def _measure(
    rounds: int, count: int
) -> tuple[list[float], list[float], int, list[float], list[float], list[float], list[float]]:
    ready: list[float] = []
    ended: list[float] = []
    opened_at_once: list[float] = []
    ended_at_once: list[float] = []
    urls: list[str] = []
    async with _daemon() as (cloud, client):
        await _ready(client, "warm-up", urls)
        for number in range(count):
            ready.append(await _timed(_ready, client, f"one-{number}", urls))
            ended.append(await _timed(_end, client, f"one-{number}"))
        for at in range(rounds):
            names = [f"many-{at}-{number}" for number in range(_AT_ONCE)]
            opened_at_once.append(await _timed(_all, _ready, client, names, urls))
            assert len(cloud.endpoints) == _AT_ONCE + 1
            ended_at_once.append(await _timed(_all, _end, client, names))
            assert len(cloud.endpoints) == 1
        up = [await _timed(_post, client, f"up-{number}") for number in range(30)]
        cloud.faults.hang_login = True
        cloud.signal_agent(signal.SIGKILL)
        while cloud.agents:
            await trio.sleep(0.01)
        down = [await _timed(_post, client, f"down-{number}") for number in range(30)]
    return ready, ended, len(urls) - len(set(urls)), opened_at_once, ended_at_once, up, down


@asynccontextmanager
async def _daemon() -> AsyncIterator[tuple[Cloud, httpx2.AsyncClient]]:
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "word.toml").write_text(_WORD)
        async with open_cloud(folder, names=500) as cloud:
            os.environ["PYNGROK_NGROK_PATH"] = str(cloud.ngrok)
            async with (
                open_test_daemon(
                    folder / "state",
                    tunnel="ngrok",
                    ngrok_authtoken=cloud.authtoken,
                    script=folder / "word.toml",
                    max_sessions=1000,
                ) as daemon,
                httpx2.AsyncClient(base_url=daemon.url, trust_env=False, timeout=60) as client,
            ):
                yield cloud, client


async def _timed(call, *args) -> float:  # type: ignore[no-untyped-def]
    """How long a call takes, in ms."""
    began = trio.current_time()
    await call(*args)
    return (trio.current_time() - began) * 1e3


async def _all(call, client, names, *args) -> None:  # type: ignore[no-untyped-def]
    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(call, client, name, *args)


async def _post(client: httpx2.AsyncClient, name: str) -> None:
    answer = await client.post("/api/chat", json={"message": "Hello", "session_id": name})
    assert answer.status_code == 201, answer.text


async def _ready(client: httpx2.AsyncClient, name: str, urls: list[str]) -> None:
    await _post(client, name)
    session = (await client.get(f"/api/sessions/{name}?wait=60")).json()
    assert session["status"] == "running", session
    urls.append(session["websocket_url"].partition("?")[0])


async def _end(client: httpx2.AsyncClient, name: str) -> None:
    assert (await client.delete(f"/api/sessions/{name}")).status_code == 200
