import io
import logging
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from daemon.clients.follow import follow
from daemon.config import Config
from daemon.errors import ConfigError
from daemon.log import configure
from daemon.main import Daemon, _ending_signals, check, lock_state_dir, open_daemon, run_daemon
from daemon.sessions.registry import Asked
from daemon.testing import test_config as make_config
from tests.sessions.house import answers, journaled_until, nothing_left, write_script
from tests.support import api, kinds, leftovers, steps_of

ROOT = Path(__file__).parent.parent
SILENT = (
    '[[turn]]\n[[turn.step]]\ntext = "I begin to speak and then"\nfault = { kind = "silence", after = 4, times = 99 }'
)


@pytest.fixture
def config(tmp_path):
    return make_config(tmp_path / "state", script=write_script(tmp_path, SILENT))


def port_of(url):
    return int(url.rpartition(":")[2])


async def open_and_close(config):
    async with open_daemon(config):
        pass


# --- what it refuses


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"host": "0.0.0.0"}, ["--host 0.0.0.0", "--api-token"]),
        ({"host": "192.168.1.5"}, ["--host 192.168.1.5", "--api-token"]),
        ({"host": "::"}, ["--host ::", "--api-token"]),
    ],
    ids=lambda value: str(value)[:30],
)
def test_address_that_others_can_reach_needs_a_token(settings, names):
    with pytest.raises(ConfigError) as refused:
        check(Config(**settings))
    assert all(name in str(refused.value) for name in names)
    assert "\n" not in str(refused.value)
    check(Config(**settings, api_token="s3cret"))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "::1"])
def test_loopback_needs_no_token(host):
    check(Config(host=host))


async def test_second_daemon_on_one_state_directory_is_refused(config):
    with trio.fail_after(10):
        async with open_daemon(config) as first:
            before = leftovers()
            with pytest.raises(ConfigError, match=f"another footlight uses the state directory {config.state_dir}"):
                await open_and_close(config)
            await nothing_left(before)
            async with api(first.url) as client:
                assert (await client.get("/health")).status_code == 200
        await open_and_close(config)  # free again


def test_lock_is_held_by_the_kernel_and_free_after_the_block(tmp_path):
    with lock_state_dir(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").stat().st_mode & 0o077 == 0
        with pytest.raises(ConfigError, match="another footlight"), lock_state_dir(tmp_path / "a" / "b"):
            raise AssertionError
        with lock_state_dir(tmp_path / "c"):
            pass
    with lock_state_dir(tmp_path / "a" / "b"):
        pass


async def test_state_directory_that_cannot_be_used_is_refused(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for state_dir in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match=r"the state directory .* cannot be used: (File exists|Not a directory)"):
            await open_and_close(make_config(state_dir))


async def test_database_that_cannot_be_used_is_refused(tmp_path):
    (tmp_path / "footlight.db").write_text("this is no database, and it is longer than the header of one. " * 20)
    before = leftovers()
    with pytest.raises(ConfigError, match=r"the database .*footlight\.db cannot be used"):
        await open_and_close(make_config(tmp_path))
    await nothing_left(before)


async def test_port_that_is_taken_is_refused_and_nothing_is_left(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken, trio.fail_after(10):
        port = taken.getsockname()[1]
        before = leftovers()
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1 port {port}: .*in use"):
            await open_and_close(make_config(tmp_path, port=port))
        await nothing_left(before)


async def test_script_that_cannot_be_used_is_refused_and_nothing_is_left(tmp_path):
    before = leftovers()
    with pytest.raises(ConfigError, match=r"the script .* cannot be used"):
        await open_and_close(make_config(tmp_path, script=tmp_path / "none.toml"))
    await nothing_left(before)


async def test_error_of_whoever_uses_a_daemon_is_not_taken_for_a_wrong_setting(config):
    with pytest.raises(ExceptionGroup) as raised:
        async with open_daemon(config):
            raise ExceptionGroup("both", [ConfigError("theirs"), ValueError("also")])
    assert raised.group_contains(ValueError)
    assert raised.group_contains(ConfigError)


# --- how it lives


async def test_daemon_listens_when_it_is_open_and_no_more_when_it_is_closed(config):
    before = leftovers()
    with trio.fail_after(10):
        async with open_daemon(config) as daemon:
            assert daemon.url.startswith("http://127.0.0.1:")
            async with api(daemon.url) as client:
                assert (await client.get("/health")).json()["status"] == "healthy"
        assert not answers(port_of(daemon.url))
        await nothing_left(before)


def has_loopback_6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("host", ["::1", "localhost"])
async def test_url_names_the_host_that_it_was_given(tmp_path, host):
    with trio.fail_after(10):
        if host == "::1" and not has_loopback_6():
            with pytest.raises(ConfigError, match="cannot listen on ::1"):
                await open_and_close(make_config(tmp_path, host=host))
            return
        async with open_daemon(make_config(tmp_path, host=host)) as daemon:
            assert daemon.url.startswith(f"http://{f'[{host}]' if ':' in host else host}:")
            async with api(daemon.url) as client:
                assert (await client.get("/health")).status_code == 200


async def test_daemon_cancelled_at_every_step_of_its_start_leaves_nothing(tmp_path):
    async def body() -> None:
        async with open_daemon(make_config(tmp_path)):
            pass

    with trio.fail_after(30):
        await body()
        before = leftovers()
        count = await steps_of(body)
        assert count > 5
        for at in range(1, count + 1):
            await steps_of(body, at)
            await nothing_left(before)


async def test_api_answers_while_sessions_end_and_then_no_more(config):
    said = []
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            async with open_daemon(config) as daemon:
                await daemon.registry.chat(Asked(message="hi", session_id="abc"))
                url = (await daemon.registry.wait("abc", 5)).websocket_url
                async with daemon.registry.history("abc") as journal:  # a reader that takes its time
                    reading = trio.Event()

                    async def ask() -> None:
                        async with api(daemon.url) as client:
                            while not daemon.registry.closing:
                                await trio.lowlevel.checkpoint()
                            said.append((await client.get("/health")).json()["status"])
                            refused = await client.post("/api/chat", json={"message": "more"})
                            said.append((refused.status_code, refused.json()["code"], refused.headers["Retry-After"]))
                            said.append((await client.get("/api/sessions/abc")).json()["status"])
                        reading.set()

                    async def read() -> None:
                        async with daemon.registry.history("abc"):
                            await reading.wait()

                    nursery.start_soon(ask)
                    nursery.start_soon(read)
                    while len(daemon.registry._live["abc"].readers) < 2:
                        await trio.lowlevel.checkpoint()
                    assert not journal.ended
        assert not answers(port_of(daemon.url))
        with pytest.raises(OSError, match="all attempts"):
            await follow(url, print)
    assert said == ["shutting_down", (503, "shutting_down", "5"), "stopping"]


async def test_cancelling_everything_around_a_daemon_tells_its_clients_and_leaves_nothing(config):
    before = leftovers()
    found, closed = [], []
    with trio.fail_after(10):
        async with trio.open_nursery() as clients:
            with trio.CancelScope() as everything:
                async with trio.open_nursery() as nursery, open_daemon(config) as daemon:
                    nursery.start_soon(trio.sleep_forever)
                    await daemon.registry.chat(Asked(message="hi", session_id="abc"))
                    url = (await daemon.registry.wait("abc", 5)).websocket_url

                    async def live() -> None:
                        closed.append(await follow(url, found.append))

                    clients.start_soon(live)
                    while daemon.registry.counts()["clients"] < 1:
                        await trio.lowlevel.checkpoint()
                    await journaled_until(daemon.registry, "abc", "turn_start")
                    everything.cancel()
            assert everything.cancelled_caught
    assert closed == [1001]
    assert kinds(found)[-1] == "session_end"
    assert found[-1]["data"]["reason"] == "shutdown"
    assert not answers(port_of(daemon.url))
    await nothing_left(before)


# --- run_daemon


@pytest.mark.parametrize(("key", "said"), [(None, True), ("sk-test", False)])
async def test_missing_key_is_said_at_the_start(tmp_path, monkeypatch, key, said):
    logger, out = logging.getLogger("footlight"), io.StringIO()
    for name in ("handlers", "propagate", "level"):
        monkeypatch.setattr(logger, name, getattr(logger, name))
    configure("text", out=out)

    async def use(_: Daemon) -> int:
        return 0

    await run_daemon(make_config(tmp_path, model="claude-x", anthropic_api_key=key), use)
    assert ("WARNING: no ANTHROPIC_API_KEY is set" in out.getvalue()) is said


async def test_run_daemon_returns_what_its_use_returned(config):
    async def use(daemon) -> int:
        return 7

    with trio.fail_after(10):
        assert await run_daemon(config, use) == 7


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)], ids=["SIGINT", "SIGTERM"])
async def test_run_daemon_ends_cleanly_by_a_signal(config, number, code):
    before = leftovers()
    handler = signal.getsignal(number)
    found = []

    async def use(daemon) -> int:
        await daemon.registry.chat(Asked(message="hi", session_id="abc"))
        url = (await daemon.registry.wait("abc", 5)).websocket_url

        def on_event(event):
            found.append(event)
            if event["event"] == "turn_start":
                os.kill(os.getpid(), number)

        async def follow_on() -> None:
            found.append(await follow(url, on_event))

        outside.start_soon(follow_on)
        await trio.sleep_forever()
        return 7

    with trio.fail_after(10):
        async with trio.open_nursery() as outside:
            assert await run_daemon(config, use) == code
    *events, closed = found
    assert (events[-1]["event"], events[-1]["data"]["reason"], closed) == ("session_end", "shutdown", 1001)
    assert signal.getsignal(number) == handler
    await nothing_left(before)


async def test_run_daemon_passes_on_an_error_of_its_use(config):
    async def use(daemon) -> int:
        raise ValueError("theirs")

    with trio.fail_after(10), pytest.raises(ExceptionGroup) as raised:
        await run_daemon(config, use)
    assert raised.group_contains(ValueError, match="theirs")


STUBBORN = """
import os, signal, sys, trio
from pathlib import Path
from daemon import log
from daemon.main import run_daemon
from daemon.sessions.registry import Asked
from daemon.testing import test_config

async def use(daemon):
    await daemon.registry.chat(Asked(message="hi", session_id="abc"))
    await daemon.registry.wait("abc", 5)
    outside.start_soon(read, daemon)
    while not len(daemon.registry._live["abc"].readers):
        await trio.sleep(0)
    print("ready", flush=True)
    await trio.sleep_forever()

async def read(daemon):
    async with daemon.registry.history("abc") as journal:
        while not journal.ended:
            await journal.wait_change()
        print("ending", flush=True)
        await trio.sleep_forever()

async def main():
    global outside
    log.configure("text", quiet=True)
    async with trio.open_nursery() as outside:
        await run_daemon(test_config(Path(sys.argv[1]), drain_grace=60.0, shutdown_grace=60.0), use)

trio.run(main)
"""


@pytest.mark.slow
def test_second_signal_ends_the_process_at_once(tmp_path):
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", STUBBORN, str(tmp_path)], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGTERM)
            assert process.stdout.readline() == "ending\n"
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=10) == 130
        finally:
            process.kill()


@pytest.mark.parametrize(("handler", "ends"), [(signal.SIG_DFL, True), (signal.SIG_IGN, False)])
def test_hang_up_ends_the_daemon_unless_it_is_ignored(handler, ends):
    before = signal.signal(signal.SIGHUP, handler)
    try:
        assert (signal.SIGHUP in _ending_signals()) is ends
    finally:
        signal.signal(signal.SIGHUP, before)
