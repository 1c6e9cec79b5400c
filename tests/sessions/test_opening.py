import socket
from contextlib import asynccontextmanager, closing
from functools import partial

import pytest
import trio

from daemon.agent.models import open_models
from daemon.clients.follow import follow
from daemon.errors import Bug
from daemon.journal.store import Store
from daemon.sessions.record import Record, Settings
from daemon.sessions.registry import Asked, Registry
from daemon.sessions.session import Session
from daemon.testing import test_config as make_config
from tests.sessions.house import (
    Crashes,
    LeadsNowhere,
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
from tests.support import children, kinds, leftovers
from tunnel import TunnelError

HELLO = '[[turn]]\n[[turn.step]]\ntext = "Hello."'
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
    async def open(self, entrance):
        self.ports.append(entrance.number)
        raise self.error
        yield


class FailsToClose(Tunnels):
    """Cannot say that the URL is gone."""

    @asynccontextmanager
    async def open(self, entrance):
        async with super().open(entrance) as tunnel:
            yield tunnel
        raise TunnelError("agent_gone", "the agent did not answer")


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
