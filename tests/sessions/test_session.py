import os
import socket
from contextlib import asynccontextmanager, closing, suppress
from functools import partial

import pytest
import trio
from trio_websocket import ConnectionClosed

from daemon.agent.models import open_models
from daemon.clients.follow import follow, open_client
from daemon.errors import Bug, CallerError
from daemon.journal.journal import open_journal
from daemon.journal.store import Store
from daemon.sessions.lifecycle import Reason
from daemon.sessions.record import Record, Settings, Usage
from daemon.sessions.registry import Asked, Registry
from daemon.sessions.session import Session
from daemon.testing import test_config as make_config
from tests.sessions.house import (
    Crashes,
    Tunnels,
    answers,
    at_step,
    history,
    journaled_until,
    nothing_left,
    open_sessions,
    watching,
    write_script,
)
from tests.support import children, events_until, journaled, kinds, leftovers
from tunnel import Tunnel, TunnelError

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


async def run_whole_life(folder, tunnels, models, *, at=-1, how="stop"):
    """One session in this task, stopped or cancelled before one of its steps; its view, the number of steps, its events."""
    folder.mkdir()
    config = make_config(folder, idle_timeout=0.001)
    with closing(Store(folder / "footlight.db")) as store:
        registry = Registry(config, store, tunnels, models, None)
        now = "2026-11-22T10:30:00.000Z"
        settings = Settings(model="scripted")
        record = Record(session_id="abc", created_at=now, last_activity=now, expires_at=None, settings=settings)
        session = registry._live["abc"] = Session(record, config, store)
        session.prompt("hi", "m1", same_text_counts=False)
        with trio.CancelScope() as outer:
            act = session.stop if how == "stop" else outer.cancel
            at = await at_step(at, act, partial(registry._run, session))
        return registry.get("abc"), at, await history(registry, "abc")


@pytest.mark.parametrize("how", ["stop", "cancel"])
async def test_open_session_ended_at_every_step_leaves_nothing(tmp_path, hello, how):
    tunnels = Tunnels()
    with trio.fail_after(30):
        async with open_models(make_config(tmp_path, script=hello)) as models:
            await run_whole_life(tmp_path / "warm", tunnels, models)
            before = leftovers()
            view, count, events = await run_whole_life(tmp_path / "whole", tunnels, models)
            assert (view.status, events[-1]["data"]["reason"]) == ("completed", "idle")
            assert count > 10
            for at in range(1, count + 1):
                view, _, events = await run_whole_life(tmp_path / f"{at}", tunnels, models, at=at, how=how)
                assert kinds(events)[0] == "session_start"
                assert kinds(events).count("session_end") == 1
                assert kinds(events)[-1] == "session_end"
                if how == "stop" and view.status != "completed":  # it was over already
                    assert (view.status, events[-1]["data"]["reason"]) == ("stopped", "stopped")
                assert not view.status.live
                assert not any(map(answers, tunnels.ports))
                assert not tunnels.alive
                await nothing_left(before)
            assert leftovers()[2] <= before[2] + 1  # Trio keeps a worker thread for the next call


# --- failing at every component


class FailsToOpen(Tunnels):
    """Has no tunnel to give."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    @asynccontextmanager
    async def open(self, port):
        self.ports.append(port)
        raise self.error
        yield


class FailsToClose(Tunnels):
    """Cannot say that the URL is gone."""

    @asynccontextmanager
    async def open(self, port):
        async with super().open(port) as tunnel:
            yield tunnel
        raise TunnelError("agent_gone", "the agent did not answer")


class LeadsNowhere(Tunnels):
    """Gives a URL at which nobody answers, or the wrong one does."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url

    @asynccontextmanager
    async def open(self, port):
        self.ports.append(port)
        yield Tunnel(self.url)


async def failed_session(registry, tunnels):
    """What is left to see of a session that could not start."""
    await registry.chat(HI)
    view = await registry.wait("abc", 5)
    assert view.websocket_url is None
    assert view.status == "error"
    assert not any(map(answers, tunnels.ports))
    return view


@pytest.mark.parametrize(
    ("error", "code", "detail"),
    [
        (TunnelError("ERR_NGROK_108", "one session at a time"), "ERR_NGROK_108", "one session at a time"),
        (Bug("never"), "internal_error", "the session failed; the log says more"),
        (ValueError("secret"), "internal_error", "the session failed; the log says more"),
        (OSError(24, "Too many open files"), "io_error", "Too many open files"),
        (ExceptionGroup("all", [TunnelError("a", "b")]), "a", "b"),
    ],
    ids=["tunnel", "bug", "unknown", "system", "group"],
)
async def test_session_whose_tunnel_cannot_be_opened_ends_in_error(tmp_path, hello, error, code, detail):
    tunnels = FailsToOpen(error)
    with trio.fail_after(10):
        async with open_sessions(tmp_path, tunnels, script=hello) as registry:
            before = leftovers()
            view = await failed_session(registry, tunnels)
            assert (view.error.code, view.error.detail) == (code, detail)
            events = await history(registry, "abc")
            await nothing_left(before)
    assert kinds(events) == ["session_start", "session_end"]
    assert events[-1]["data"]["reason"] == "error"
    assert events[-1]["data"]["detail"] == detail


@pytest.mark.parametrize("what", ["silent", "refusing", "another"])
async def test_session_whose_url_does_not_answer_ends_in_error(tmp_path, hello, what):
    with trio.fail_after(10), socket.create_server(("127.0.0.1", 0)) as silent:
        async with (
            open_sessions(tmp_path, script=hello, verify_deadline=0.15) as registry,
            trio.open_nursery() as nursery,
        ):
            [listener] = await nursery.start(partial(trio.serve_tcp, answer_as_another, 0, host="127.0.0.1"))
            ports = {"silent": silent.getsockname()[1], "another": listener.socket.getsockname()[1], "refusing": 1}
            tunnels = registry._tunnels = LeadsNowhere(f"http://127.0.0.1:{ports[what]}")
            before = leftovers()
            view = await failed_session(registry, tunnels)
            await nothing_left(before)
            events = await history(registry, "abc")
            nursery.cancel_scope.cancel()
    assert view.error.code == "url_not_reachable"
    assert kinds(events) == ["session_start", "session_end"]


async def answer_as_another(stream):
    async with stream:
        await stream.receive_some()
        body = b'{"status":"healthy","session_id":"xyz"}'
        await stream.send_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


async def test_session_whose_tunnel_fails_to_close_is_still_gone(tmp_path, hello):
    tunnels = FailsToClose()
    with trio.fail_after(10):
        async with open_sessions(tmp_path, tunnels, script=hello) as registry:
            before = leftovers()
            await registry.chat(HI)
            await journaled_until(registry, "abc", "ready_for_input")
            view = await registry.stop("abc")
            assert (view.status, view.error) == ("stopped", None)
            assert not any(map(answers, tunnels.ports))
            await nothing_left(before)
            assert kinds(await history(registry, "abc"))[-1] == "session_end"


@pytest.mark.parametrize(
    ("error", "code"),
    [(TunnelError("ERR_NGROK_8012", "lost"), "ERR_NGROK_8012"), (Bug("never"), "internal_error")],
    ids=["tunnel", "bug"],
)
async def test_session_whose_tunnel_crashes_ends_in_error_not_in_shutdown(tmp_path, hello, error, code):
    tunnels = Crashes(error)
    with trio.fail_after(10):
        async with open_sessions(tmp_path, tunnels, script=hello) as registry:
            await registry.chat(HI)
            view = await registry.wait("abc", 5)
            await journaled_until(registry, "abc", "ready_for_input")
            found = []

            def on_event(event):
                found.append(event)
                if event["event"] == "ready_for_input":
                    tunnels.crash.set()

            closed = await follow(view.websocket_url, on_event)
            view = await registry.stop("abc")
    assert closed == 1000
    assert found[-1]["data"]["reason"] == "error"
    assert (view.status, view.error.code) == ("error", code)


@pytest.mark.parametrize("what", ["workspace", "journal"])
async def test_session_whose_folder_cannot_be_made_ends_in_error(tmp_path, hello, what):
    folder = tmp_path / "sessions" / "abc"
    folder.mkdir(parents=True)
    (folder / what).write_text("in the way")
    tunnels = Tunnels()
    with trio.fail_after(10):
        async with open_sessions(tmp_path, tunnels, script=hello) as registry:
            before = leftovers()
            view = await failed_session(registry, tunnels)
            await nothing_left(before)
    assert view.error.code == "io_error"
    assert tunnels.record == []


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


# --- the order of what it owns


async def test_url_is_shown_only_after_it_answered_through_its_tunnel(tmp_path, hello):
    tunnels = Tunnels()
    with trio.fail_after(10):
        async with open_sessions(tmp_path, tunnels, script=hello) as registry:
            await registry.chat(HI)
            with watching(lambda: (registry.get("abc").websocket_url is not None, "asked" in tunnels.record)) as seen:
                events = await journaled_until(registry, "abc", "ready_for_input")
            url = registry.get("abc").websocket_url
    assert seen[-1] == (True, True)
    assert (True, False) not in seen
    assert kinds(events)[:3] == ["session_start", "websocket_ready", "turn_start"]
    said = events[1]["data"]["websocket_url"]
    assert url == f"{said}?token={url.rpartition('=')[2]}"
    assert tunnels.record[:2] == ["opened", "asked"]


async def test_clients_get_the_end_before_the_tunnel_closes_and_the_port_after_it(tmp_path, hello):
    tunnels = Tunnels()
    with trio.fail_after(10):
        async with open_sessions(tmp_path, tunnels, script=hello) as registry:
            await registry.chat(HI)
            view = await registry.wait("abc", 5)

            def on_event(event):
                if event["event"] == "ready_for_input":
                    registry._live["abc"].stop()
                elif event["event"] == "session_end":
                    tunnels.record.append("session_end")

            assert await follow(view.websocket_url, on_event) == 1000
            tunnels.record.append("close 1000")
            await registry.stop("abc")
    record = [line for line in tunnels.record if line != "asked"]
    assert record[:2] == ["opened", "session_end"]
    assert set(record[2:]) == {"close 1000", "closing while the port answers", "closed"}
    assert not answers(tunnels.ports[0])


async def test_terminal_status_is_never_seen_while_anything_is_left(tmp_path, hello):
    tunnels = Tunnels()

    def look():
        status = registry.get("abc").status
        left = () if status.live else (answers(tunnels.ports[0]), bool(tunnels.alive), bool(children()))
        return (status, *left)

    with trio.fail_after(10):
        async with open_sessions(tmp_path, tunnels, script=hello) as registry:
            await registry.chat(HI)
            with watching(look) as seen:
                await journaled_until(registry, "abc", "ready_for_input")
                await registry.stop("abc")
    gone = (False, False, False)
    assert seen == [("initializing",), ("running",), ("stopping",), ("stopped", *gone)]


# --- how it may end


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
