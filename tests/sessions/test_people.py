"""People in control of a session, over real sockets: who is asked, who is told, and how soon it stops."""

import shutil
from typing import Any

import msgspec
import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from daemon.agent.unfinished import NOT_BEGUN
from daemon.clients.follow import open_client
from daemon.sessions.registry import Asked
from daemon.testing import open_test_daemon
from tests.sessions.house import history, journaled_until, nothing_left, open_sessions, write_script
from tests.support import api, events_until, kinds, leftovers, next_event

WRITES = """
[[turn]]
pattern = "^write"
[[turn.step]]
[[turn.step.tool]]
name = "write"
input = { file_path = "a.txt", content = "a" }
[[turn.step]]
text = "Done."
"""
HANGS = """
[[turn]]
pattern = "^hang"
[[turn.step]]
text = "I begin to speak and then"
fault = { kind = "silence", after = 4, times = 99 }
"""
RUNS = """
[[turn]]
pattern = "^run"
[[turn.step]]
[[turn.step.tool]]
name = "bash"
input = { command = "echo begun; sleep 60" }
[[turn.step]]
text = "Done."
"""
TALKS = """
[[turn]]
[[turn.step]]
text = "Yes."
"""
SCRIPT = WRITES + HANGS + RUNS + TALKS
# What is going on when somebody steps in: the prompt that leads there, and the event that shows it.
MOMENTS = {
    "streaming": ("hang", "claude_text_delta"),
    "waiting for an answer": ("write", "approval_required"),
    "a command running": ("run", "tool_output"),
}
ASK = {"approval": "ask", "ask_for": ("write",)}


def until(kind: str) -> Any:
    return lambda event: event["event"] == kind


async def say(ws: WebSocketConnection, kind: str, **fields: Any) -> None:
    await ws.send_message(msgspec.json.encode({"type": kind, **fields}).decode())


async def test_first_answer_wins_and_all_are_told(tmp_path):
    async with open_sessions(tmp_path, script=write_script(tmp_path, SCRIPT)) as registry:
        await registry.chat(Asked(message="write", session_id="abc", approval="ask"))
        view = await registry.wait("abc", 5)
        async with open_client(view.websocket_url) as first:
            asked = (await events_until(first, until("approval_required")))[-1]["data"]
            async with open_client(view.websocket_url) as late, open_client(view.watch_url) as watcher:
                for ws in (late, watcher):
                    connected = await next_event(ws)
                    assert connected["data"]["pending"] == {"approvals": [asked], "running_tools": []}
                await say(watcher, "approve", tool_use_id=asked["tool_use_id"])
                assert (await events_until(watcher, until("error")))[-1]["data"]["code"] == "forbidden"
                await say(late, "deny", tool_use_id=asked["tool_use_id"], reason="not now")
                for ws in (first, late, watcher):
                    told = (await events_until(ws, until("approval_resolved")))[-1]["data"]
                    assert told == {
                        "tool_use_id": asked["tool_use_id"],
                        "decision": "deny",
                        "client_id": connected["data"]["client_id"] - 1,
                        "reason": "not now",
                    }
                await say(first, "approve", tool_use_id=asked["tool_use_id"])
                assert (await events_until(first, until("error")))[-1]["data"]["code"] == "no_such_approval"
                result = next(
                    event["data"] for event in await history(registry, "abc") if event["event"] == "claude_tool_result"
                )
                assert result["result"] == "denied by a person: not now"


async def test_unknown_verdict_counts_as_a_no(tmp_path):
    async with open_sessions(tmp_path, script=write_script(tmp_path, SCRIPT), approval="ask") as registry:
        await registry.chat(Asked(message="write", session_id="abc"))
        view = await registry.wait("abc", 5)
        async with open_client(view.websocket_url) as ws:
            asked = (await events_until(ws, until("approval_required")))[-1]["data"]
            await say(ws, "allow", tool_use_id=asked["tool_use_id"])
            said = await events_until(ws, until("turn_complete"))
        (resolved,) = (event["data"] for event in said if event["event"] == "approval_resolved")
        assert (resolved["decision"], resolved["reason"]) == ("deny", "'allow' is no verdict that is known")
        assert not (tmp_path / "sessions" / "abc" / "workspace" / "a.txt").exists()


async def test_approval_is_the_sessions_own_and_a_later_message_changes_it(tmp_path):
    async with open_sessions(tmp_path, script=write_script(tmp_path, SCRIPT), approval="ask") as registry:
        await registry.chat(Asked(message="write", session_id="abc", approval="auto"))
        events = await journaled_until(registry, "abc", "ready_for_input")
        assert "approval_required" not in kinds(events)
        await registry.chat(Asked(message="write more", session_id="abc", approval="ask"))
        await journaled_until(registry, "abc", "approval_required")
        await registry.stop("abc")
        await registry.chat(Asked(message="write again", session_id="abc"))  # as it was
        await journaled_until(registry, "abc", "approval_required", 2)


async def test_session_without_approval_of_its_own_follows_the_daemons(tmp_path):
    script = write_script(tmp_path, SCRIPT)
    async with open_sessions(tmp_path, script=script) as registry:
        await registry.chat(Asked(message="write", session_id="abc"))
        assert "approval_required" not in kinds(await journaled_until(registry, "abc", "ready_for_input"))
    async with open_sessions(tmp_path, script=script, approval="ask") as registry:
        await registry.chat(Asked(message="write again", session_id="abc"))
        await journaled_until(registry, "abc", "approval_required")


@pytest.mark.parametrize("door", ["websocket", "http"])
@pytest.mark.parametrize("moment", MOMENTS)
async def test_interrupt_ends_the_turn_within_a_second_at_any_moment(tmp_path, moment, door):
    prompt, sign = MOMENTS[moment]
    with trio.fail_after(20):
        async with (
            open_test_daemon(tmp_path / "state", script=write_script(tmp_path, SCRIPT), **ASK) as daemon,
            api(daemon.url) as client,
        ):
            await client.post("/api/chat", json={"message": prompt, "session_id": "abc"})
            view = (await client.get("/api/sessions/abc?wait=10")).json()
            async with open_client(view["websocket_url"]) as ws:
                await events_until(ws, until(sign))
                for number in (1, 2):
                    answer = await client.post("/api/chat", json={"message": f"next {number}", "session_id": "abc"})
                    assert answer.json()["accepted"] == "queued"
                    queued = (await events_until(ws, until("prompt_queued")))[-1]["data"]
                    assert (queued["prompt"], queued["position"]) == (f"next {number}", number)
                assert (await client.get("/api/sessions/abc")).json()["queued_prompts"] == 2
                if door == "websocket":
                    await say(ws, "interrupt")
                else:
                    assert (await client.post("/api/sessions/abc/interrupt")).status_code == 200
                with trio.fail_after(1):
                    said = await events_until(ws, until("turn_complete"))
                assert said[-1]["data"]["stop_reason"] == "interrupted"
                ready = (await events_until(ws, until("ready_for_input")))[-1]["data"]
                assert ready == {"turn": 1, "queued_prompts": 2}
                for turn in (2, 3):  # the queue goes on
                    done = (await events_until(ws, until("turn_complete")))[-1]["data"]
                    assert (done["turn"], done["stop_reason"]) == (turn, "end_turn")


@pytest.mark.parametrize("how", ["stopped", "timeout"])
@pytest.mark.parametrize("moment", MOMENTS)
async def test_session_ended_at_any_moment_is_gone_within_the_grace(tmp_path, moment, how):
    prompt, sign = MOMENTS[moment]
    timeout = 2.0 if how == "timeout" else None
    async with open_sessions(tmp_path, script=write_script(tmp_path, SCRIPT), **ASK) as registry:
        before = leftovers()
        await registry.chat(Asked(message=prompt, session_id="abc", timeout=timeout))
        url = (await registry.wait("abc", 5)).websocket_url
        async with open_client(url) as ws:
            await events_until(ws, until(sign))
            with trio.fail_after(registry.config.shutdown_grace):
                if how == "stopped":
                    await say(ws, "stop")
                said = await events_until(ws, until("session_end"))
                with pytest.raises(ConnectionClosed):
                    await ws.get_message()
        view = await registry.stop("abc")
        assert view.status == said[-1]["data"]["reason"] == how
        if sign == "approval_required":
            (resolved,) = (event["data"] for event in said if event["event"] == "approval_resolved")
            assert resolved["decision"] == "cancelled"
        await nothing_left(before)


async def test_call_that_waited_when_the_daemon_crashed_is_not_run_later(tmp_path):
    script = write_script(tmp_path, SCRIPT)
    first, copy = tmp_path / "first", tmp_path / "copy"
    async with open_sessions(first, script=script, approval="ask") as registry:
        await registry.chat(Asked(message="write", session_id="abc"))
        await journaled_until(registry, "abc", "approval_required")
        shutil.copytree(first, copy)  # as a kill would leave it
    async with open_sessions(copy, script=script, approval="ask") as registry:
        await registry.chat(Asked(message="hello", session_id="abc"))
        view = await registry.wait("abc", 5)
        async with open_client(f"{view.websocket_url}&offset={view.offset}") as ws:
            connected = await next_event(ws)
            assert connected["data"]["pending"]["approvals"] == []
        await journaled_until(registry, "abc", "ready_for_input")
        events = await history(registry, "abc")
        (result,) = (event["data"]["result"] for event in events if event["event"] == "claude_tool_result")
        assert result == NOT_BEGUN
        assert not (copy / "sessions" / "abc" / "workspace" / "a.txt").exists()
