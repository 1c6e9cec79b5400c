from prometheus_client.parser import text_string_to_metric_families

from daemon import __version__
from daemon.api.metrics import exposition
from tests.api.calls import ended_session, wait_for
from tests.support import api


def samples(registry):
    families = text_string_to_metric_families(exposition(registry, 1.5).decode())
    return {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}


async def test_metrics_are_zero_at_first(daemon):
    found = samples(daemon.registry)
    assert found["footlight_info", __version__] == 1
    assert found["footlight_uptime_seconds",] == 1.5
    counts = {
        name: value for name, value in found.items() if name[0] not in {"footlight_info", "footlight_uptime_seconds"}
    }
    assert set(counts.values()) == {0}
    assert {name[0] for name in counts} == {
        "footlight_sessions_live",
        "footlight_clients",
        "footlight_queued_prompts",
        "footlight_sessions_created_total",
        "footlight_events_total",
        "footlight_sessions",
    }


async def test_metrics_count_sessions_prompts_and_events(daemon):
    async with api(daemon.url) as client:
        ended = await ended_session(daemon, client, "old")
        await client.post("/api/chat", json={"message": "hold on", "session_id": "abc"})
        await wait_for(daemon, "abc", "turn_start")
        await client.post("/api/chat", json={"message": "more", "session_id": "abc"})
        live = (await client.get("/api/sessions/abc/events")).json()["offset"]
        found = samples(daemon.registry)
    assert found["footlight_sessions_live",] == 1
    assert found["footlight_queued_prompts",] == 1
    assert found["footlight_sessions_created_total",] == 2
    assert found["footlight_events_total",] == len(ended) + live
    assert found["footlight_sessions", "running"] == found["footlight_sessions", "stopped"] == 1
