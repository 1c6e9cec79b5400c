"""The ngrok providers, on a real pyngrok and a stand-in for the agent and its cloud."""

import os
import signal
import subprocess
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import trio

from tests.standins.cloud import open_cloud
from tests.support import children, descriptors
from tests.tunnel.conformance import Answering, ProviderConformance, answering, body_at, provider_of
from tests.tunnel.faults import CASES, PATIENCE, open_stage, play
from tunnel import TunnelError, TunnelProvider
from tunnel.choose import Wishes
from tunnel.leash import Leash


class NgrokConformance(ProviderConformance):
    """One of the ways through ngrok."""

    name = "ngrok"
    plan = "paid"

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path, monkeypatch):
        self.folder = tmp_path
        monkeypatch.setenv("PYNGROK_NGROK_PATH", str(tmp_path / "ngrok"))

    def open_provider(self) -> AbstractAsyncContextManager[TunnelProvider]:
        return self._open()

    @asynccontextmanager
    async def _open(self):
        async with open_cloud(self.folder, plan=self.plan) as cloud:
            wishes = Wishes(name=self.name, folder=self.folder / "agent", authtoken=cloud.authtoken, patience=PATIENCE)
            async with provider_of(wishes) as provider:
                yield provider


class TestNgrok(NgrokConformance):
    pass


class TestNgrokShared(NgrokConformance):
    name = "ngrok-shared"
    plan = "free"


class TestAutoOnAnAccountWithManyUrls(NgrokConformance):
    name = "auto"


class TestAutoOnAnAccountWithOneUrl(NgrokConformance):
    name = "auto"
    plan = "free"


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.slow] * case.slow, id=case.run.__name__) for case in CASES]
)
async def test_fault_is_answered_and_nothing_is_left_when(case, tmp_path) -> None:
    with trio.fail_after(30):
        await play(case, tmp_path)


@pytest.mark.parametrize(("plan", "said"), [("paid", "ngrok"), ("free", "ngrok-shared")])
async def test_auto_says_what_the_account_allows_and_why(plan, said, tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.setenv("PYNGROK_NGROK_PATH", str(tmp_path / "ngrok"))
    with caplog.at_level("INFO", "footlight"):
        async with open_cloud(tmp_path, plan=plan) as cloud:
            wishes = Wishes(name="auto", folder=tmp_path / "agent", authtoken=cloud.authtoken, patience=PATIENCE)
            async with provider_of(wishes) as provider, provider.open(Answering()):
                assert len(cloud.endpoints) == 1
    chosen = [record.fields for record in caplog.records if record.msg == "tunnel_chosen"]
    assert [fields["provider"] for fields in chosen] == [said]
    assert chosen[0]["reason"]


async def test_auto_without_an_authtoken_is_local(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    async with provider_of(Wishes(name="auto", folder=tmp_path / "agent")) as provider:
        assert provider.name == "local"


async def test_authtoken_is_in_no_command_line_and_in_a_file_for_its_owner_alone(tmp_path) -> None:
    async with open_stage(tmp_path) as stage, stage.opened():
        agent = stage.cloud.agents[0]
        assert stage.cloud.authtoken not in " ".join(agent.argv)
        assert agent.token == stage.cloud.authtoken
        assert "inspect_db_size: -1" in agent.config
        assert (tmp_path / "agent" / "ngrok.yml").stat().st_mode & 0o777 == 0o600
        environ = Leash(tmp_path / "agent", tmp_path)
        for pid in environ.running():
            with open(f"/proc/{pid}/cmdline", "rb") as file:  # noqa: PTH123
                assert stage.cloud.authtoken.encode() not in file.read()


async def test_authtoken_that_ngrok_quotes_is_in_no_log(tmp_path, caplog, capfd) -> None:
    with caplog.at_level("DEBUG"):
        async with open_stage(tmp_path) as stage:
            stage.cloud.faults.login_error = "ERR_NGROK_107"
            with pytest.raises(TunnelError):
                async with stage.provider.open(Answering()):
                    pass
            secret = stage.cloud.authtoken
    out, err = capfd.readouterr()
    assert any(record.msg == "tunnel_failed" for record in caplog.records)
    for text in (out, err, *(str(vars(record)) for record in caplog.records)):
        assert secret not in text


async def test_inspection_is_off_for_every_endpoint(tmp_path) -> None:
    async with open_stage(tmp_path) as stage, stage.opened():
        api = stage.provider._agent._process.api
        from pyngrok import ngrok

        listed = await trio.to_thread.run_sync(ngrok.api_request, f"{api}/api/endpoints")
        assert [each["inspect"] for each in listed["endpoints"]] == [False]


async def test_local_api_is_asked_directly_though_a_proxy_is_set(tmp_path, monkeypatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    with trio.fail_after(10):
        async with open_stage(tmp_path) as stage, stage.opened():
            pass
    os.environ.pop("no_proxy", None)


async def test_two_hundred_in_sequence_leave_nothing(tmp_path) -> None:
    async with open_stage(tmp_path) as stage:
        async with stage.opened():
            pass
        before = descriptors(), children()
        for number in range(200):
            async with stage.opened(b"%d" % number):
                pass
        with trio.fail_after(2):
            while (descriptors(), children()) != before:  # the stand-in's edge lets go of the last connection
                await trio.sleep(0.01)
        assert len({url for _, url in stage.cloud.history}) == 201
        assert not stage.cloud.endpoints


async def test_one_sessions_end_leaves_the_other_connected(tmp_path) -> None:
    async with open_stage(tmp_path) as stage, stage.opened(b"stays") as tunnel:
        async with stage.opened(b"goes"):
            pass
        assert await body_at(tunnel) == b"stays"
        assert stage.cloud.starts == 1


async def test_agent_ends_by_itself_when_its_starter_is_killed(tmp_path) -> None:
    """The leash alone: what holds its pipe is a process that is killed."""
    leash = Leash(tmp_path, tmp_path / "agent")
    (tmp_path / "agent").write_text("#!/bin/sh\nexec sleep 1000\n")
    (tmp_path / "agent").chmod(0o700)
    fd = leash.prepare()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            run = await nursery.start(
                lambda task_status: trio.run_process(
                    [leash.script, "--config", leash.config],
                    check=False,
                    start_new_session=True,
                    task_status=task_status,
                )
            )
            while not leash.running():
                await trio.sleep(0.01)
            began = trio.current_time()
            os.close(fd)  # what the kernel does for a process that is gone
            await run.wait()
            assert trio.current_time() - began < 5
        while leash.running():
            await trio.sleep(0.02)


async def test_agent_of_an_earlier_crash_is_ended_at_the_next_start(tmp_path, monkeypatch) -> None:
    stale = Leash(tmp_path / "agent", tmp_path / "ngrok")
    (tmp_path / "agent").mkdir()
    async with open_cloud(tmp_path) as cloud:
        stale.config.write_text(f"version: 3\nagent:\n  authtoken: {cloud.authtoken}\n")
        orphan = await trio.lowlevel.open_process(
            [cloud.ngrok, "start", "--none", "--log", "stdout", "--config", stale.config],
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        while not cloud.agents:
            await trio.sleep(0.01)
        monkeypatch.setenv("PYNGROK_NGROK_PATH", str(cloud.ngrok))
        wishes = Wishes(name="ngrok", folder=tmp_path / "agent", authtoken=cloud.authtoken, patience=PATIENCE)
        with trio.fail_after(10):
            async with provider_of(wishes) as provider, answering() as entrance, provider.open(entrance):
                assert orphan.poll() is not None
                assert [agent.pid for agent in cloud.agents] != [orphan.pid]
        assert await orphan.wait() in {0, -signal.SIGKILL}


async def test_agent_that_dies_takes_its_watcher_along_and_is_started_again_only_for_who_needs_it(tmp_path) -> None:
    leash = Leash(tmp_path / "agent", tmp_path)
    with trio.fail_after(20):
        async with open_stage(tmp_path) as stage:
            async with stage.opened() as tunnel:
                for _ in range(3):
                    stage.cloud.signal_agent(signal.SIGKILL)
                    await stage.restored(tunnel, "ngrok_agent_ended")
                    assert len(leash.running()) == 2  # an agent and its watcher
            starts = stage.cloud.starts
            stage.cloud.signal_agent(signal.SIGKILL)
            while stage.provider._agent._process is not None or leash.running():
                await trio.sleep(0.01)
            assert stage.cloud.starts == starts
            async with stage.opened():
                assert stage.cloud.starts == starts + 1
        assert not leash.config.exists()


async def test_missing_binary_is_an_error_that_says_what_to_do(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PYNGROK_NGROK_PATH", str(tmp_path / "nothing"))
    with pytest.raises(TunnelError, match="doctor --install-ngrok") as error:
        async with provider_of(Wishes(name="ngrok", folder=tmp_path / "agent", authtoken="2x")):
            pass
    assert error.value.code == "ngrok_missing"


@pytest.mark.parametrize("version", ["3.29.9", "2.3.41"])
async def test_agent_that_is_too_old_is_refused_at_start(version, tmp_path, monkeypatch) -> None:
    (tmp_path / "ngrok").write_text(f"#!/bin/sh\necho ngrok version {version}\n")
    (tmp_path / "ngrok").chmod(0o700)
    monkeypatch.setenv("PYNGROK_NGROK_PATH", str(tmp_path / "ngrok"))
    with pytest.raises(TunnelError, match="ngrok update"):
        async with provider_of(Wishes(name="ngrok", folder=tmp_path / "agent", authtoken="2x")):
            pass
