import trio

from daemon import __version__
from tests.api.calls import wait_for
from tests.support import api


async def test_health_counts_what_is_alive(daemon):
    async with api(daemon.url) as client:
        health = (await client.get("/health")).json()
        assert health.pop("uptime_seconds") >= 0
        assert health == {"status": "healthy", "version": __version__, "sessions": 0, "clients": 0}
        await client.post("/api/chat", json={"message": "hold on", "session_id": "abc"})
        assert (await client.get("/health")).json()["sessions"] == 1


async def test_health_says_when_the_daemon_is_shutting_down(daemon):
    async with api(daemon.url) as client:
        with trio.fail_after(10):
            await daemon.registry.stop_all()
        assert (await client.get("/health")).json()["status"] == "shutting_down"


async def test_root_names_the_routes(daemon):
    async with api(daemon.url) as client:
        response = await client.get("/")
        assert response.status_code == 200
        assert __version__ in response.text
        for path in ("/api/chat", "/api/sessions", "/health", "/metrics", "/openapi.json", "/docs"):
            assert path in response.text


async def test_metrics_answer_as_prometheus_text(daemon):
    async with api(daemon.url) as client:
        await client.post("/api/chat", json={"message": "hold on", "session_id": "abc"})
        await wait_for(daemon, "abc", "turn_start")
        response = await client.get("/metrics")
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert "footlight_sessions_live 1.0" in response.text.splitlines()
        assert (await client.head("/health")).content == b""
