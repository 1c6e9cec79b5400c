import trio
from tests.support import all_events, api, journaled, kinds


async def test_session_builds_its_site_and_ends(daemon):
    async with api(daemon.url) as client:
        created = (await client.post("/api/chat", json={"message": "Build a restaurant menu"})).json()
        path = f"/api/sessions/{created['session_id']}"
        view = (await client.get(path, params={"wait": 10})).json()
        assert view["status"] == "running"
        async with trio.open_nursery() as nursery:

            async def stop_after_turn() -> None:
                while (await client.get(path)).json()["usage"]["output_tokens"] == 0:
                    await trio.sleep(0.01)
                await client.delete(path)

            nursery.start_soon(stop_after_turn)
            events, code = await all_events(view["websocket_url"])
    assert code == 1000
    assert [event["offset"] for event in journaled(events)] == list(range(1, len(journaled(events)) + 1))
    assert kinds(journaled(events))[:3] == ["session_start", "websocket_ready", "turn_start"]
    assert kinds(journaled(events))[-1] == "session_end"
