"""What a user's own suite may rely on: footlight inside a pytest-trio test."""

import pytest
import trio

from daemon.clients.follow import follow
from daemon.config import Config
from daemon.testing import open_test_daemon
from daemon.testing import test_config as make_config
from tests.sessions.house import answers, nothing_left, write_script
from tests.support import api, kinds, leftovers

SILENT = (
    '[[turn]]\n[[turn.step]]\ntext = "I begin to speak and then"\nfault = { kind = "silence", after = 4, times = 99 }'
)


@pytest.fixture
async def daemon(tmp_path):
    async with open_test_daemon(tmp_path) as opened:
        yield opened


async def test_config_of_a_test_takes_free_ports_and_needs_no_account(tmp_path):
    config = make_config(tmp_path)
    assert (config.port, config.model, config.script_pace, config.tunnel) == (0, "scripted", 0.0, "local")
    assert config.state_dir == tmp_path
    assert make_config(tmp_path, port=1, max_sessions=2) == Config(
        port=1, model="scripted", script_pace=0.0, tunnel="local", state_dir=tmp_path, max_sessions=2
    )


def test_config_of_a_test_is_no_test_itself():
    assert make_config.__test__ is False


async def test_daemon_as_a_fixture_serves_a_whole_session(daemon):
    with trio.fail_after(20):
        async with api(daemon.url) as client:
            said = (await client.post("/api/chat", json={"message": "Build a menu", "session_id": "abc"})).json()
            assert said["accepted"] == "created"
            view = (await client.get("/api/sessions/abc", params={"wait": 10})).json()
            found = []

            def on_event(event):
                found.append(event)
                return event["event"] == "ready_for_input"

            await follow(view["websocket_url"], on_event)
            page = await client.get(view["preview_url"], follow_redirects=True)
            assert (await client.delete("/api/sessions/abc")).json()["status"] == "stopped"
    assert "preview_ready" in kinds(found)
    assert "<html" in page.text


async def test_two_daemons_side_by_side_know_nothing_of_each_other(tmp_path):
    with trio.fail_after(20):
        async with open_test_daemon(tmp_path / "a") as one, open_test_daemon(tmp_path / "b") as two:
            assert one.url != two.url
            async with api(one.url) as first, api(two.url) as second:
                await first.post("/api/chat", json={"message": "hi", "session_id": "abc"})
                assert (await second.get("/api/sessions/abc")).status_code == 404


async def test_leaving_with_everything_alive_leaves_nothing(tmp_path):
    before = leftovers()
    script = write_script(tmp_path, SILENT)
    with trio.fail_after(20):
        async with open_test_daemon(tmp_path / "state", script=script) as daemon, api(daemon.url) as client:
            for name in ("a", "b", "c"):
                await client.post("/api/chat", json={"message": "hi", "session_id": name})
            views = [(await client.get(f"/api/sessions/{name}", params={"wait": 5})).json() for name in ("a", "b", "c")]
        ports = [int(view["websocket_url"].split(":")[2].split("/")[0]) for view in views]
        assert not any(map(answers, ports))
        await nothing_left(before)


@pytest.mark.parametrize("moment", range(4))
async def test_nested_nurseries_that_are_cancelled_leave_nothing(tmp_path, moment):
    """A test of a user's that gives up: clients, requests and the daemon all go at once, at any moment."""
    before = leftovers()
    script = write_script(tmp_path, SILENT)
    with trio.fail_after(20):
        async with trio.open_nursery() as outer:
            async with open_test_daemon(tmp_path / "state", script=script) as daemon, trio.open_nursery() as inner:
                if moment == 0:
                    outer.cancel_scope.cancel()
                async with api(daemon.url) as client:
                    await client.post("/api/chat", json={"message": "hi", "session_id": "abc"})
                    if moment == 1:
                        outer.cancel_scope.cancel()
                    view = (await client.get("/api/sessions/abc", params={"wait": 5})).json()
                    seen = trio.Event()
                    inner.start_soon(follow, view["websocket_url"], lambda event: seen.set())
                    if moment == 2:
                        outer.cancel_scope.cancel()
                    await seen.wait()
                    outer.cancel_scope.cancel()
        assert not answers(int(daemon.url.rpartition(":")[2]))
        await nothing_left(before)


async def test_failing_assertion_inside_comes_out_and_nothing_is_left(tmp_path):
    before = leftovers()
    script = write_script(tmp_path, SILENT)

    async def their_test() -> None:
        async with open_test_daemon(tmp_path / "state", script=script) as daemon, api(daemon.url) as client:
            await client.post("/api/chat", json={"message": "hi", "session_id": "abc"})
            raise AssertionError("theirs")

    with trio.fail_after(20):
        with pytest.raises(ExceptionGroup) as raised:
            await their_test()
        assert raised.group_contains(AssertionError, match="theirs")
        await nothing_left(before)


async def test_state_stays_for_the_next_daemon(tmp_path):
    script = write_script(tmp_path, SILENT)
    with trio.fail_after(20):
        async with open_test_daemon(tmp_path, script=script) as daemon, api(daemon.url) as client:
            await client.post("/api/chat", json={"message": "hi", "session_id": "abc"})
        async with open_test_daemon(tmp_path, script=script) as daemon, api(daemon.url) as client:
            assert (await client.get("/api/sessions/abc")).json()["status"] == "interrupted"
