import os
import socket
from contextlib import closing, suppress

import pytest
import trio
from trio_websocket import ConnectionClosed

from daemon.clients.follow import follow, open_client
from daemon.errors import CallerError
from daemon.journal.journal import open_journal
from daemon.journal.store import Store
from daemon.sessions.lifecycle import Reason
from daemon.sessions.record import Record, Settings, Usage
from daemon.sessions.registry import Asked
from daemon.sessions.session import Session
from daemon.testing import test_config as make_config
from tests.sessions.house import (
    LeadsNowhere,
    history,
    journaled_until,
    nothing_left,
    open_sessions,
    write_script,
)
from tests.support import events_until, journaled, kinds, leftovers

HELLO = '[[turn]]\n[[turn.step]]\ntext = "Hello."'
SILENT = (
    '[[turn]]\n[[turn.step]]\ntext = "I begin to speak and then"\nfault = { kind = "silence", after = 4, times = 99 }'
)
WRITES = (
    '[[turn]]\n[[turn.step]]\ntool = [{ name = "write", input = { file_path = "a.txt", content = "a" } }]\n'
    + SILENT[8:]
)
HI = Asked(message="hi", session_id="abc")


@pytest.fixture
def hello(tmp_path):
    return write_script(tmp_path, HELLO)


@pytest.mark.parametrize(
    ("script", "when"),
    [
        (HELLO, "session_start"),
        (HELLO, "websocket_ready"),
        (HELLO, "turn_complete"),
        (HELLO, "ready_for_input"),
        (SILENT, "turn_start"),
        (WRITES, "claude_tool_use"),
        (WRITES, "claude_tool_result"),
    ],
    ids=["start", "url", "complete", "idle", "streaming", "tool", "after tool"],
)
async def test_session_stopped_at_any_moment_ends_in_order(tmp_path, script, when):
    with trio.fail_after(10):
        async with open_sessions(tmp_path, script=write_script(tmp_path, script)) as registry:
            before = leftovers()
            await registry.chat(HI)
            await journaled_until(registry, "abc", when)
            view = await registry.stop("abc")
            again = await registry.stop("abc")
            events = await history(registry, "abc")
            await nothing_left(before)
    assert view.status == again.status == "stopped"
    assert [event["offset"] for event in events] == list(range(1, len(events) + 1))
    assert kinds(events).count("session_end") == 1
    assert events[-1]["data"] == {"reason": "stopped", "turn_count": view.turn, "detail": None, "processes_killed": 0}
    assert kinds(events).count("turn_start") == kinds(events).count("turn_complete") == view.turn
    assert kinds(events).count("claude_tool_use") == kinds(events).count("claude_tool_result")


async def test_session_stopped_while_text_streams_keeps_what_was_said(tmp_path):
    with trio.fail_after(10):
        async with open_sessions(tmp_path, script=write_script(tmp_path, SILENT)) as registry:
            await registry.chat(HI)
            view = await registry.wait("abc", 5)
            async with open_client(view.websocket_url) as ws:
                streamed = await events_until(ws, lambda event: event["event"] == "claude_text_delta")
                await ws.send_message('{"type": "stop"}')
                streamed += await events_until(ws, lambda event: event["event"] == "session_end")
                with pytest.raises(ConnectionClosed) as closed:
                    await ws.get_message()
            view = await registry.stop("abc")
    assert closed.value.reason.code == 1000
    assert kinds(journaled(streamed))[-3:] == ["claude_text", "turn_complete", "session_end"]
    assert streamed[-1]["data"]["reason"] == "stopped"
    [text] = [event["data"]["text"] for event in streamed if event["event"] == "claude_text"]
    assert "I begin to speak and then".startswith(text)
    [complete] = [event["data"] for event in streamed if event["event"] == "turn_complete"]
    assert complete["stop_reason"] == "interrupted"
    assert view.status == "stopped"


async def test_session_ends_when_its_time_is_up(tmp_path):
    with trio.fail_after(10):
        async with open_sessions(tmp_path, script=write_script(tmp_path, SILENT)) as registry:
            view = (await registry.chat(Asked(message="hi", session_id="abc", timeout=0.4))).view
            assert view.expires_at is not None
            await journaled_until(registry, "abc", "session_end")
            view = await registry.stop("abc")
            events = await history(registry, "abc")
    assert (view.status, events[-1]["data"]["reason"]) == ("timeout", "timeout")
    assert kinds(events)[-2:] == ["turn_complete", "session_end"]


async def test_session_whose_time_is_up_before_it_has_a_url_ends_as_timeout(tmp_path, hello):
    with trio.fail_after(10), socket.create_server(("127.0.0.1", 0)) as silent:
        tunnels = LeadsNowhere(f"http://127.0.0.1:{silent.getsockname()[1]}")
        async with open_sessions(tmp_path, tunnels, script=hello) as registry:
            await registry.chat(Asked(message="hi", session_id="abc", timeout=0.05))
            view = await registry.wait("abc", 5)
            assert view.status == "timeout"
            assert kinds(await history(registry, "abc")) == ["session_start", "session_end"]


async def test_session_without_a_prompt_for_too_long_completes(tmp_path, hello):
    with trio.fail_after(10):
        async with open_sessions(tmp_path, script=hello, idle_timeout=0.05) as registry:
            await registry.chat(HI)
            events = await journaled_until(registry, "abc", "session_end")
            view = await registry.stop("abc")
    assert kinds(events)[-2:] == ["ready_for_input", "session_end"]
    assert (view.status, events[-1]["data"]["reason"]) == ("completed", "idle")


async def test_session_counts_its_idle_time_anew_after_each_turn(tmp_path, hello):
    with trio.fail_after(10):
        async with open_sessions(tmp_path, script=hello, idle_timeout=0.3) as registry:
            await registry.chat(HI)
            for turn in range(1, 5):
                await journaled_until(registry, "abc", "ready_for_input", turn)
                assert (await registry.chat(Asked(message=f"more {turn}", session_id="abc"))).accepted == "queued"
            events = await journaled_until(registry, "abc", "session_end")
    assert events[-1]["data"]["turn_count"] == 5


class CountsTurns:
    """Stands in for the agent at the model's edge: takes no time and says nothing."""

    def __init__(self) -> None:
        self.prompts = []
        self.deltas = self

    async def run(self):
        await trio.sleep_forever()

    async def run_turn(self, number, prompt, message_id):
        self.prompts.append(prompt)
        return Usage(1, 1, 1, 1)


@pytest.mark.parametrize("trial", range(8))  # Trio runs the two tasks that wake at the same moment in any order
async def test_prompt_that_comes_as_the_idle_time_ends_is_not_lost(tmp_path, autojump_clock, trial):
    config = make_config(tmp_path, idle_timeout=5.0)
    now = "2026-11-22T10:30:00.000Z"
    record = Record(
        session_id="abc", created_at=now, last_activity=now, expires_at=None, settings=Settings(model="scripted")
    )
    with (
        closing(Store(tmp_path / "footlight.db")) as store,
        open_journal("abc", tmp_path / "journal", limit=1 << 20) as (journal, _),
    ):
        session = Session(record, config, store)
        session.journal, session.agent = journal, CountsTurns()
        accepted = []

        async def prompt() -> None:
            await trio.sleep(5.0)
            with suppress(CallerError):
                accepted.append(session.prompt("late", "m1", same_text_counts=False)["accepted"])

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(prompt)
                await session.run()
    assert len(session.agent.prompts) == len(accepted)
    assert session.reason is Reason.idle


async def test_websocket_and_port_answer_no_more_once_the_status_is_terminal(tmp_path, hello):
    with trio.fail_after(10):
        async with open_sessions(tmp_path, script=hello) as registry:
            await registry.chat(HI)
            url = (await registry.wait("abc", 5)).websocket_url
            view = await registry.stop("abc")
            assert (view.websocket_url, view.watch_url, view.preview_url, view.health_url) == (None, None, None, None)
            with pytest.raises(OSError, match="all attempts to connect"):
                await follow(url, print)


async def test_session_logs_and_shows_no_part_of_its_tokens(tmp_path, hello):
    with trio.fail_after(10):
        async with open_sessions(tmp_path, script=hello) as registry:
            await registry.chat(HI)
            await journaled_until(registry, "abc", "ready_for_input")
            tokens = registry._live["abc"].tokens
            events = await history(registry, "abc")
            assert len({tokens.control, tokens.watch, tokens.preview}) == 3
            for secret in (tokens.control, tokens.watch, tokens.preview):
                assert secret not in repr(events)
                assert secret not in repr(registry._live["abc"].record)
                assert secret not in repr(tokens)


@pytest.mark.parametrize(
    ("message", "message_id"),
    [("", None), (" \n", None), ("x" * 100_001, None), ("a", ""), ("a", "x" * 129), ("\ud800", None), ("a", "\ud800")],
    ids=["empty", "blank", "long", "id empty", "id long", "surrogate", "id surrogate"],
)
async def test_what_cannot_be_a_prompt_is_refused_and_changes_nothing(tmp_path, hello, message, message_id):
    with trio.fail_after(10):
        async with open_sessions(tmp_path, script=hello) as registry:
            with pytest.raises(CallerError) as refused:
                await registry.chat(Asked(message=message, message_id=message_id, session_id="abc"))
            assert (refused.value.code, refused.value.status) == ("invalid_request", 422)
            with pytest.raises(CallerError, match="there is no session"):
                registry.get("abc")


# --- a journal that cannot be written


async def test_session_whose_journal_is_full_ends_alone(tmp_path, hello):
    with trio.fail_after(10):
        async with open_sessions(tmp_path, script=hello) as registry:
            before = leftovers()
            await registry.chat(HI)
            await registry.chat(Asked(message="hi", session_id="other"))
            await journaled_until(registry, "other", "ready_for_input")
            events = await journaled_until(registry, "abc", "ready_for_input")
            fill_up(registry._live["abc"].journal)
            with pytest.raises(CallerError) as refused:
                await registry.chat(Asked(message="more", session_id="abc", message_id="m2"))
            assert (refused.value.code, refused.value.status) == ("journal_full", 507)
            view = await registry.stop("abc")
            assert (view.status, view.error.code) == ("error", "journal_full")
            assert kinds(await history(registry, "abc")) == kinds(events)
            await registry.chat(Asked(message="again", session_id="other"))
            await journaled_until(registry, "other", "turn_complete", 2)
            await registry.stop("other")
            await nothing_left(before)


def fill_up(journal):
    """From now on nothing can be written to it, as on a full disk."""
    segment = journal._segments[-1]
    only_reads = os.open(f"/proc/self/fd/{segment._frames}", os.O_RDONLY)
    os.dup2(only_reads, segment._frames)
    os.close(only_reads)


async def test_session_whose_journal_fills_up_in_a_turn_ends_in_error(tmp_path):
    with trio.fail_after(10):
        async with open_sessions(tmp_path, script=write_script(tmp_path, SILENT)) as registry:
            await registry.chat(HI)
            view = await registry.wait("abc", 5)
            async with open_client(view.websocket_url) as ws:
                await events_until(ws, lambda event: event["event"] == "claude_text_delta")
                fill_up(registry._live["abc"].journal)
                registry.interrupt("abc")
                with pytest.raises(ConnectionClosed) as closed:
                    await events_until(ws, lambda event: False)
            view = await registry.stop("abc")
    assert closed.value.reason.code == 1000
    assert (view.status, view.error.code) == ("error", "journal_full")
