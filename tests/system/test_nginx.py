"""`--tunnel static` behind Debian's nginx, with the very configuration of docs/deploy.md."""

import re
import socket
import subprocess
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
import trio

from daemon.clients.follow import open_client
from daemon.testing import open_test_daemon
from tests.standins.edge import make_certificate
from tests.support import api, events_until, journaled, next_event
from tests.system.processes import environment
from tests.tunnel.conformance import ProviderConformance, provider_of
from tunnel import TunnelProvider
from tunnel.choose import Wishes
from tunnel.probe import ask

RECIPE = re.search(
    r"```nginx\n(.*?)```", (Path(__file__).parents[2] / "docs" / "deploy.md").read_text(), re.DOTALL
).group(1)
AROUND = """\
daemon off; pid {folder}/pid; error_log stderr; worker_processes 1;
events {{ worker_connections 512; }}
http {{
access_log off;
client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
{recipe}
}}
"""


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@asynccontextmanager
async def nginx(folder, monkeypatch):
    """Its public URL, and the port that it leads to."""
    folder.mkdir()
    certificate = await make_certificate(folder, ["127.0.0.1"])
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    here, there = free_ports(2)
    recipe = re.sub(r"listen 443", f"listen 127.0.0.1:{here}", RECIPE)
    recipe = re.sub(r"(ssl_certificate(_key)?) +\S+;", rf"\1 {certificate};", recipe).replace(":8001;", f":{there};")
    (folder / "nginx.conf").write_text(AROUND.format(folder=folder, recipe=recipe))
    async with trio.open_nursery() as nursery:
        command = ["/usr/sbin/nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder), "-e", "stderr"]
        log = (folder / "log").open("wb")
        with log:
            process = await nursery.start(
                lambda task_status: trio.run_process(
                    command,
                    check=False,
                    env=environment(),
                    stderr=log,
                    stdin=subprocess.DEVNULL,
                    task_status=task_status,
                )
            )
            with trio.fail_after(5):
                while not (folder / "pid").exists():
                    assert process.poll() is None, (folder / "log").read_text()
                    await trio.sleep(0.01)
            try:
                yield f"https://127.0.0.1:{here}", there
            finally:
                process.terminate()


class TestStaticBehindNginx(ProviderConformance):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path, monkeypatch):
        self.folder, self.monkeypatch = tmp_path, monkeypatch

    def open_provider(self) -> AbstractAsyncContextManager[TunnelProvider]:
        return self._open()

    @asynccontextmanager
    async def _open(self):
        async with nginx(self.folder / "nginx", self.monkeypatch) as (url, port):
            async with provider_of(
                Wishes(name="static", folder=self.folder, public_url=url, shared_port=port)
            ) as provider:
                yield provider


@asynccontextmanager
async def session_behind_nginx(folder, monkeypatch):
    async with nginx(folder / "nginx", monkeypatch) as (url, port):
        settings = {"tunnel": "static", "public_url": url, "shared_port": port}
        async with open_test_daemon(folder / "state", **settings) as daemon, api(daemon.url) as client:
            created = (await client.post("/api/chat", json={"message": "Build a restaurant menu"})).json()
            yield client, (await client.get(f"/api/sessions/{created['session_id']}?wait=20")).json()


async def test_session_is_followed_through_nginx_and_its_path_is_gone_with_it(tmp_path, monkeypatch) -> None:
    with trio.fail_after(30):
        async with session_behind_nginx(tmp_path, monkeypatch) as (client, session):
            assert session["websocket_url"].startswith("wss://127.0.0.1:"), session
            async with open_client(session["websocket_url"]) as ws:
                seen = await events_until(ws, lambda event: event["event"] == "ready_for_input")
                await ws.send_message('{"type": "ping"}')
                assert await events_until(ws, lambda event: event["event"] == "pong")
                await client.delete(f"/api/sessions/{session['session_id']}")
                while seen[-1]["event"] != "session_end":
                    seen.append(await next_event(ws))
            offsets = [event["offset"] for event in journaled(seen)]
            assert offsets == list(range(1, len(offsets) + 1))
            assert (await ask(session["health_url"], {})).status == 410


async def test_preview_sets_a_secure_cookie_for_its_own_path(tmp_path, monkeypatch) -> None:
    with trio.fail_after(30):
        async with session_behind_nginx(tmp_path, monkeypatch) as (_, session):
            async with open_client(session["websocket_url"]) as ws:
                await events_until(ws, lambda event: event["event"] == "preview_ready")
            base, _, _ = session["preview_url"].partition("?")
            async with httpx2.AsyncClient(trust_env=True) as browser:
                entered = await browser.get(session["preview_url"])
                assert entered.status_code == 302
                cookie = entered.headers["set-cookie"]
                assert "; Secure" in cookie
                assert f"; Path={urlsplit(base).path};" in cookie
                assert "<html" in (await browser.get(base)).text
                assert (await browser.get(base.rpartition("/s/")[0] + "/s/" + "0" * 32 + "/")).status_code == 404
