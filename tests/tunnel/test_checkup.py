"""Trying an account: what it gave, and that nothing of the trial is left."""

from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from daemon.log import Log
from tests.standins.cloud import open_cloud
from tests.support import leftovers
from tests.tunnel.faults import PATIENCE
from tunnel import TunnelError
from tunnel.checkup import try_account
from tunnel.leash import Leash


@asynccontextmanager
async def account(folder, monkeypatch, *, plan="paid", tls=False):
    async with open_cloud(folder, plan=plan, tls=tls) as cloud:
        monkeypatch.setenv("PYNGROK_NGROK_PATH", str(cloud.ngrok))
        if tls:
            monkeypatch.setenv("SSL_CERT_FILE", str(cloud.edge.certificate))
        yield cloud


@pytest.mark.parametrize(("plan", "several"), [("paid", True), ("free", False)])
async def test_account_shows_whether_it_gives_several_urls_and_all_of_them_are_gone(
    plan, several, tmp_path, monkeypatch
) -> None:
    before = leftovers()[:2]
    with trio.fail_after(20):
        async with account(tmp_path, monkeypatch, plan=plan) as cloud:
            found = await try_account(cloud.authtoken, Log("footlight"), PATIENCE)
            assert found.several is several
            assert found.reason
            assert found.url in {url for _, url in cloud.history}
            assert not cloud.endpoints
            while cloud.agents:  # the stand-in has to hear of it
                await trio.lowlevel.checkpoint()
    assert leftovers()[:2] == before


async def test_url_is_asked_over_tls(tmp_path, monkeypatch) -> None:
    with trio.fail_after(20):
        async with account(tmp_path, monkeypatch, tls=True) as cloud:
            found = await try_account(cloud.authtoken, Log("footlight"), PATIENCE)
            assert found.url.startswith("https://")


async def test_agent_of_a_running_daemon_is_left_alone(tmp_path, monkeypatch) -> None:
    from tests.tunnel.faults import open_stage

    with trio.fail_after(20):
        async with open_stage(tmp_path) as stage, stage.opened() as tunnel:
            running = Leash(tmp_path / "agent", Path()).running()
            monkeypatch.setenv("PYNGROK_NGROK_PATH", str(stage.cloud.ngrok))
            await try_account(stage.cloud.authtoken, Log("footlight"), PATIENCE)
            assert Leash(tmp_path / "agent", Path()).running() == running
            assert list(stage.cloud.endpoints) == [tunnel.url]


async def test_account_that_refuses_is_an_error_with_its_code(tmp_path, monkeypatch) -> None:
    with trio.fail_after(20):
        async with account(tmp_path, monkeypatch) as cloud:
            cloud.faults.login_error = "ERR_NGROK_123"
            refused = pytest.RaisesExc(TunnelError, check=lambda error: error.code == "ERR_NGROK_123")
            with pytest.RaisesGroup(refused, flatten_subgroups=True):
                await try_account(cloud.authtoken, Log("footlight"), PATIENCE)
