"""A whole daemon with public URLs: real pyngrok, the stand-in for ngrok's agent and cloud, real sockets."""

import os
import signal
from contextlib import asynccontextmanager

import msgspec
import pytest
import trio
from trio_websocket import ConnectionClosed

from daemon.clients.follow import open_client
from daemon.testing import open_test_daemon
from tests.standins.cloud import open_cloud
from tests.support import api, children, descriptors, events_until, journaled, kinds, next_event
from tests.system.processes import serving
from tunnel.leash import Leash

WAYS = [("ngrok", "paid"), ("ngrok-shared", "free"), ("auto", "free"), ("auto", "paid")]


@asynccontextmanager
async def public_daemon(folder, monkeypatch, *, tunnel="ngrok", plan="paid", tls=False, **settings):
    """A cloud and a daemon that gets its URLs there."""
    async with open_cloud(folder, plan=plan, tls=tls) as cloud:
        monkeypatch.setenv("PYNGROK_NGROK_PATH", str(cloud.ngrok))
        if tls:
            monkeypatch.setenv("SSL_CERT_FILE", str(cloud.edge.certificate))
        settings = {"tunnel": tunnel, "ngrok_authtoken": cloud.authtoken, "tunnel_check": 0.5, **settings}
        async with open_test_daemon(folder / "state", **settings) as daemon, api(daemon.url) as client:
            yield cloud, client


async def start(client, message="Build a restaurant menu", wait=20):
    created = (await client.post("/api/chat", json={"message": message})).json()
    return (await client.get(f"/api/sessions/{created['session_id']}?wait={wait}")).json()


@pytest.mark.parametrize(("tunnel", "plan"), WAYS)
async def test_session_is_followed_through_its_public_url_and_gone_with_its_end(
    tunnel, plan, tmp_path, monkeypatch
) -> None:
    fds, processes = descriptors(), children()
    with trio.fail_after(30):
        async with public_daemon(tmp_path, monkeypatch, tunnel=tunnel, plan=plan) as (cloud, client):
            session = await start(client)
            assert session["status"] == "running", session
            assert session["websocket_url"].startswith("ws://127.")
            assert (session["websocket_url"].count("/s/") == 1) == (plan == "free")
            async with open_client(session["websocket_url"]) as ws:
                seen = await events_until(ws, lambda event: event["event"] == "ready_for_input")
                ready = next(event for event in seen if event["event"] == "websocket_ready")
                assert session["websocket_url"].startswith(ready["data"]["websocket_url"] + "?token=")
                await client.delete(f"/api/sessions/{session['session_id']}")
                seen += await until_closed(ws)
            assert seen[-1]["event"] == "session_end"
            offsets = [event["offset"] for event in journaled(seen)]
            assert offsets == list(range(1, len(offsets) + 1))
            base = [name for name in cloud.endpoints.values() if name]
            assert len(base) == (1 if plan == "free" else 0)
            gone = await client.get(session["health_url"])
            assert gone.status_code == (410 if plan == "free" else 404)
    assert (descriptors(), children()) == (fds, processes)


async def test_session_is_followed_over_tls(tmp_path, monkeypatch) -> None:
    with trio.fail_after(30):
        async with public_daemon(tmp_path, monkeypatch, tls=True) as (_, client):
            session = await start(client)
            assert session["websocket_url"].startswith("wss://127."), session
            assert session["preview_url"].startswith("https://")


async def test_post_answers_as_fast_while_the_agent_is_down(tmp_path, monkeypatch) -> None:
    async def posted(client) -> float:
        began = trio.current_time()
        answer = await client.post("/api/chat", json={"message": "hello"})
        assert answer.status_code == 201
        return trio.current_time() - began

    with trio.fail_after(30):
        async with public_daemon(tmp_path, monkeypatch, tunnel_open=2.0) as (cloud, client):
            await start(client)
            up = min([await posted(client) for _ in range(3)])
            cloud.faults.hang_login = True
            cloud.signal_agent(signal.SIGKILL)
            while cloud.agents:
                await trio.sleep(0.01)
            down = min([await posted(client) for _ in range(3)])
            assert down < max(0.1, 5 * up)


async def test_lost_connection_is_told_on_the_local_side_and_the_session_goes_on(tmp_path, monkeypatch) -> None:
    with trio.fail_after(30):
        async with public_daemon(tmp_path, monkeypatch) as (cloud, client):
            session = await start(client)
            path = f"/api/sessions/{session['session_id']}"
            async with open_client(session["websocket_url"]) as ws:
                await events_until(ws, lambda event: event["event"] == "ready_for_input")
                await cloud.drop_session(0.5)
                await until_closed(ws)
            events = await until(client, session, "tunnel_restored")
            assert kinds(events)[-2:] == ["tunnel_lost", "tunnel_restored"]
            assert events[-2]["data"]["code"] == "ngrok_session_lost"
            assert session["websocket_url"].startswith(events[-1]["data"]["websocket_url"])
            assert (await client.get(path)).json()["status"] == "running"
            async with open_client(f"{session['websocket_url']}&offset={events[-2]['offset']}") as ws:
                assert kinds(await events_until(ws, lambda event: "offset" in event))[-1] == "tunnel_restored"


async def until_closed(ws):
    """What else comes."""
    events = []
    try:
        while True:
            events.append(await next_event(ws))
    except ConnectionClosed:
        return events


async def until(client, session, kind):
    """The journal as soon as it has an event of that kind."""
    while True:
        answer = await client.get(f"/api/sessions/{session['session_id']}/events?limit=1000")
        events = answer.json()["events"]
        if kind in kinds(events):
            return events
        await trio.sleep(0.02)


async def test_changed_url_is_warned_of_and_journaled(tmp_path, monkeypatch, caplog) -> None:
    with caplog.at_level("INFO", "footlight"), trio.fail_after(30):
        async with public_daemon(tmp_path, monkeypatch) as (cloud, client):
            session = await start(client)
            await until(client, session, "ready_for_input")
            cloud.faults.new_urls = True
            cloud.signal_agent(signal.SIGKILL)
            events = await until(client, session, "tunnel_restored")
            assert kinds(events)[-3:] == ["tunnel_lost", "websocket_url_changed", "tunnel_restored"]
            change = events[-2]["data"]
            assert session["websocket_url"].startswith(change["old"])
            now = (await client.get(f"/api/sessions/{session['session_id']}")).json()
            assert now["websocket_url"].startswith(change["new"])
            assert change["new"] != change["old"]
            async with open_client(now["websocket_url"]) as ws:
                assert await events_until(ws, lambda event: event["event"] == "tunnel_restored")
    said = {record.msg for record in caplog.records}
    assert {"url_changed", "url_old", "url_new"} <= said


async def test_tunnel_that_does_not_come_back_ends_its_session_with_the_providers_code(tmp_path, monkeypatch) -> None:
    with trio.fail_after(30):
        async with public_daemon(tmp_path, monkeypatch, tunnel_restore=1.0) as (cloud, client):
            session = await start(client)
            await until(client, session, "ready_for_input")
            await cloud.drop_session(1000)
            while True:
                now = (await client.get(f"/api/sessions/{session['session_id']}")).json()
                if now["status"] not in {"running", "stopping"}:
                    break
                await trio.sleep(0.02)
            assert (now["status"], now["error"]["code"]) == ("error", "ngrok_session_lost")
            events = await until(client, session, "session_end")
            assert kinds(events)[-2:] == ["tunnel_lost", "session_end"]
            assert events[-1]["data"]["reason"] == "error"
            assert (await client.get("/health")).json()["status"] == "healthy"


async def test_bad_authtoken_is_an_error_of_the_session_that_says_what_to_do(tmp_path, monkeypatch) -> None:
    with trio.fail_after(30):
        async with public_daemon(tmp_path, monkeypatch, ngrok_authtoken="nonsense") as (cloud, client):
            session = await start(client)
            assert (session["status"], session["error"]["code"]) == ("error", "ERR_NGROK_105")
            assert "NGROK_AUTHTOKEN" in session["error"]["detail"]
            assert "nonsense" not in msgspec.json.encode(session).decode()
            assert cloud.history == []


@pytest.mark.slow
async def test_twenty_sessions_at_once_are_not_mixed_up(tmp_path, monkeypatch) -> None:
    with trio.fail_after(60):
        async with public_daemon(tmp_path, monkeypatch, max_sessions=20) as (cloud, client):
            names = [f"session-{number}" for number in range(20)]
            for name in names:
                await client.post("/api/chat", json={"message": f"I am {name}", "session_id": name})
            sessions = [(await client.get(f"/api/sessions/{name}?wait=20")).json() for name in names]
            assert len({session["websocket_url"].partition("?")[0] for session in sessions}) == 20
            for name, session in zip(names, sessions, strict=True):
                health = (await client.get(session["health_url"])).json()
                assert health["session_id"] == name
            async with trio.open_nursery() as nursery:
                for name in names:
                    nursery.start_soon(client.delete, f"/api/sessions/{name}")
            assert cloud.endpoints == {}


async def agent_gone(cloud, folder, within: float) -> float:
    """How long it takes until nothing of the agent is left, at the cloud and here."""
    began = trio.current_time()
    leash = Leash(folder / "ngrok", folder)
    with trio.fail_after(within):
        while cloud.agents or leash.running():
            await trio.sleep(0.01)
    return trio.current_time() - began


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda how: how.name)
async def test_agent_and_urls_are_gone_within_five_seconds_of_the_daemons_end(how, tmp_path, monkeypatch) -> None:
    with trio.fail_after(40):
        async with open_cloud(tmp_path) as cloud:
            monkeypatch.setenv("PYNGROK_NGROK_PATH", str(cloud.ngrok))
            monkeypatch.setenv("NGROK_AUTHTOKEN", cloud.authtoken)
            state = tmp_path / "state"
            async with serving(state, "--tunnel", "ngrok") as footlight, api(footlight.url) as client:
                session = await start(client)
                assert session["status"] == "running", session
                footlight.process.send_signal(how)
                await footlight.wait(6)
                await agent_gone(cloud, state, 5)
                log = footlight.log.read_text()
            assert "] ngrok websocket tunnel created: ws://127." in log
            assert cloud.authtoken not in log


async def test_daemon_started_after_a_crash_ends_the_orphan_that_lost_its_watcher(tmp_path, monkeypatch) -> None:
    with trio.fail_after(40):
        async with open_cloud(tmp_path) as cloud:
            monkeypatch.setenv("PYNGROK_NGROK_PATH", str(cloud.ngrok))
            monkeypatch.setenv("NGROK_AUTHTOKEN", cloud.authtoken)
            state = tmp_path / "state"
            leash = Leash(state / "ngrok", state)
            async with serving(state, "--tunnel", "ngrok") as footlight, api(footlight.url) as client:
                await start(client)
                orphan = cloud.agents[0].pid
                for watcher in leash.running() - leash.running(watchers=False):
                    os.kill(watcher, signal.SIGKILL)
                footlight.process.kill()
                await footlight.wait(5)
            assert orphan in leash.running()
            async with serving(state, "--tunnel", "ngrok") as footlight, api(footlight.url) as client:
                session = await start(client, "again")
                assert session["status"] == "running", session
                assert orphan not in leash.running()
                assert [agent.pid for agent in cloud.agents] != [orphan]
                await footlight.logged("left behind")
                footlight.process.terminate()
                await footlight.wait(6)
            await agent_gone(cloud, state, 1)
