"""kill -9 in the middle of a stream: what a client had seen is there after a restart, under the same offsets."""

import random
import signal
from contextlib import closing, suppress
from typing import Any

import httpx2
import msgspec
import pytest
import trio
from trio_websocket import ConnectionClosed

from daemon.agent.unfinished import NOT_BEGUN, UNKNOWN
from daemon.clients.follow import open_client
from daemon.journal.store import Store
from tests.support import api, events_until, journaled, kinds
from tests.system.processes import Footlight, refuses, serving, start_session


async def see_until_gone(url: str, seen: list[dict[str, Any]], *, offset: int = 0) -> None:
    """Everything that a client gets until the connection breaks; what came is kept as it comes."""
    async with open_client(f"{url}&offset={offset}") as ws:
        with suppress(ConnectionClosed):
            while True:
                seen.append(msgspec.json.decode(await ws.get_message()))


async def kill(footlight: Footlight) -> None:
    footlight.process.send_signal(signal.SIGKILL)
    assert await footlight.wait(5) == -signal.SIGKILL


async def history(client: httpx2.AsyncClient, session_id: str) -> dict[str, Any]:
    answer = await client.get(f"/api/sessions/{session_id}/events", params={"limit": 10_000})
    assert answer.status_code == 200
    page: dict[str, Any] = answer.json()
    return page


async def kept(client: httpx2.AsyncClient, session_id: str, seen: list[dict[str, Any]]) -> dict[str, Any]:
    """The session after a crash, when it has been compared with what a client saw; its history."""
    view = (await client.get(f"/api/sessions/{session_id}")).json()
    page = await history(client, session_id)
    events = page["events"]
    assert view["status"] == "interrupted"
    assert view["websocket_url"] is None
    assert page["epoch"] == view["epoch"] == seen[0]["data"]["epoch"]
    assert [event["offset"] for event in events] == list(range(1, view["offset"] + 1))
    assert events[: len(journaled(seen))] == journaled(seen)
    assert events[-1]["event"] == "session_end"
    assert events[-1]["data"]["reason"] == "interrupted"
    assert kinds(events).count("session_end") == kinds(events).count("session_start")  # one for each run
    return page


@pytest.mark.slow
async def test_killed_daemon_has_lost_nothing_that_was_seen_and_goes_on(tmp_path):
    state, seen = tmp_path / "state", []
    with trio.fail_after(90):
        async with serving(state, "--script-pace", "5") as footlight, api(footlight.url) as client:
            view = await start_session(client)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(see_until_gone, view["websocket_url"], seen)
                async with open_client(view["watch_url"]) as ws:
                    await events_until(ws, lambda event: event["event"] == "claude_tool_result")
                    await events_until(ws, lambda event: event["event"] == "claude_text_delta")
                await kill(footlight)
            assert "claude_tool_result" in kinds(seen)
            old = (footlight.port, view["websocket_url"])
        assert await refuses(old[0])

        async with serving(state, "--script-pace", "0") as footlight, api(footlight.url) as client:
            session_id = view["session_id"]
            page = await kept(client, session_id, seen)
            answer = await client.post("/api/chat", json={"session_id": session_id, "message": "Go on"})
            assert (answer.status_code, answer.json()["accepted"]) == (200, "queued")
            again = (await client.get(f"/api/sessions/{session_id}", params={"wait": 20}, timeout=25)).json()
            assert again["websocket_url"] != old[1]
            async with open_client(f"{again['websocket_url']}&offset={page['offset']}&epoch={page['epoch']}") as ws:
                events = await events_until(ws, lambda event: event["event"] == "turn_start")
            assert [event["offset"] for event in journaled(events)] == [page["offset"] + step for step in (1, 2, 3)]
            assert kinds(journaled(events)) == ["session_start", "websocket_ready", "turn_start"]
            assert kinds(events)[0] == "connected"
            assert not {"replay_reset", "replay_gap"} & {*kinds(events)}


async def test_second_daemon_starts_at_once_after_a_kill(tmp_path):
    with trio.fail_after(60):
        async with serving(tmp_path / "state") as footlight:
            await kill(footlight)
        async with serving(tmp_path / "state") as footlight, api(footlight.url) as client:
            assert (await client.get("/health")).json()["status"] == "healthy"


MANY_CALLS = 'name = "many"\n[[turn]]\npattern = "count"\n[[turn.step]]\n' + 400 * (
    '[[turn.step.tool]]\nname = "edit"\ninput = { file_path = "log.txt", old_string = "end", new_string = "x end" }\n'
)
MANY_CALLS += '[[turn.step]]\ntext = "Counted."\n[[turn]]\n[[turn.step]]\ntext = "Fine."\n'


@pytest.mark.slow
async def test_calls_that_a_kill_cut_are_answered_truly_and_never_run_twice(tmp_path):
    state, script, seen = tmp_path / "state", tmp_path / "many.toml", []
    script.write_text(MANY_CALLS)
    args = ("--script", str(script), "--script-pace", "0")
    log = state / "sessions" / "calls" / "workspace" / "log.txt"
    log.parent.mkdir(parents=True)
    log.write_text("end")
    with trio.fail_after(90):
        async with serving(state, *args) as footlight, api(footlight.url) as client:
            view = await start_session(client, session_id="calls", message="count")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(see_until_gone, view["websocket_url"], seen)
                while "claude_tool_result" not in kinds(seen):
                    await trio.sleep(0.001)
                await kill(footlight)
        ran = log.read_text().count("x")
        assert 0 < ran < 400
        async with serving(state, *args) as footlight, api(footlight.url) as client:
            events = (await history(client, "calls"))["events"]
            begun = [event["data"]["tool_use_id"] for event in events if event["event"] == "claude_tool_use"]
            assert len(begun) - ran in {0, 1}  # one may have been about to begin
            await start_session(client, session_id="calls", message="go on")
            while kinds((await history(client, "calls"))["events"])[-1] != "ready_for_input":
                await trio.sleep(0.01)
            uses = [
                event for event in (await history(client, "calls"))["events"] if event["event"] == "claude_tool_use"
            ]
            assert len(uses) == len(begun)
        assert log.read_text().count("x") == ran
    with closing(Store(state / "footlight.db")) as store:
        blocks = [block for message in store.conversation("calls") for block in message["content"]]
    called = [block["id"] for block in blocks if block["type"] == "tool_use"]
    answers = [block for block in blocks if block["type"] == "tool_result"]
    assert len(called) == 400
    assert [answer["tool_use_id"] for answer in answers] == called
    through = [event["data"]["result"] for event in events if event["event"] == "claude_tool_result"]
    assert {*through[:-1]} == {"edited log.txt (1 replacement(s))"}
    assert through[-1] in {UNKNOWN, through[0]}  # tools run one after another: at most the last one was cut
    assert kinds(events)[-2:] == ["turn_complete", "session_end"]
    told = [*through, *[NOT_BEGUN] * (400 - len(begun))]
    assert len(through) == len(begun)
    assert [answer["content"] for answer in answers] == told
    assert [answer["is_error"] for answer in answers] == [text in {UNKNOWN, NOT_BEGUN} for text in told]


@pytest.mark.slow
async def test_twenty_kills_at_any_moment_lose_nothing(tmp_path):
    """One session, reopened after each kill; its history only ever grows."""
    state, dice, told = tmp_path / "state", random.Random(20), []
    print("seed 20")
    with trio.fail_after(600):
        for _ in range(20):
            seen: list[dict[str, Any]] = []
            async with serving(state, "--script-pace", "20") as footlight, api(footlight.url) as client:
                if told:
                    assert (await history(client, "crashed"))["events"][: len(told)] == told
                view = await start_session(client, session_id="crashed")
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(see_until_gone, view["websocket_url"], seen)
                    while "claude_text_delta" not in kinds(seen):
                        await trio.sleep(0.01)
                    await trio.sleep(dice.random() * 1.5)  # any moment of the turn, or after it
                    await kill(footlight)
            async with serving(state) as footlight, api(footlight.url) as client:
                told = (await kept(client, "crashed", seen))["events"]
