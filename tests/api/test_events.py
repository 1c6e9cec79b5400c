import pytest
import trio

from daemon.testing import open_test_daemon
from tests.api.calls import assert_problem, ended_session, follow, head, holding, port_of, read_until, wait_for
from tests.support import api, descriptors

EVENTS = "/api/sessions/abc/events"


async def page(client, **params):
    response = await client.get(EVENTS, params=params)
    assert response.status_code == 200, response.text
    return response.json()


def offsets(found):
    return [event.get("offset") for event in found]


# --- as pages


async def test_pages_of_any_size_make_the_whole_journal(daemon):
    async with api(daemon.url) as client:
        journal = await ended_session(daemon, client, "abc")
        for limit in (*range(1, len(journal) + 2), 10_000):
            found, offset = [], 0
            while (one := await page(client, offset=offset, limit=limit))["events"]:
                assert len(one["events"]) <= limit
                assert one["offset"] == len(journal)
                found += one["events"]
                offset = one["next_offset"]
            assert offset == len(journal)
            assert found == journal, limit
        assert offsets(journal) == list(range(1, len(journal) + 1))
        assert (journal[0]["event"], journal[-1]["event"]) == ("session_start", "session_end")


async def test_page_begins_after_the_offset(daemon):
    async with api(daemon.url) as client:
        journal = await ended_session(daemon, client, "abc")
        for offset in range(len(journal) + 1):
            one = await page(client, offset=offset)
            assert one["events"] == journal[offset:]
            assert one["next_offset"] == len(journal)


async def test_page_of_a_live_session_is_what_there_is_now(daemon):
    async with api(daemon.url) as client:
        await client.post("/api/chat", json={"message": "hold on", "session_id": "abc"})
        await wait_for(daemon, "abc", "turn_start")
        one = await page(client)
        assert one["offset"] == one["next_offset"] == len(one["events"])
        assert one["events"][-1]["event"] == "turn_start"
        assert (await page(client, offset=one["next_offset"]))["events"] == []


@pytest.mark.parametrize(
    ("params", "reason"), [({"offset": 1000}, "ahead"), ({"offset": 1, "epoch": "other"}, "epoch")]
)
async def test_page_says_that_it_begins_anew_when_the_offset_is_of_another_journal(daemon, params, reason):
    async with api(daemon.url) as client:
        journal = await ended_session(daemon, client, "abc")
        one = await page(client, **params)
        first, *others = one["events"]
        assert (first["event"], first["data"]) == ("replay_reset", {"reason": reason, "epoch": one["epoch"]})
        assert "offset" not in first
        assert others == journal


async def test_page_goes_on_when_the_epoch_is_right(daemon):
    async with api(daemon.url) as client:
        journal = await ended_session(daemon, client, "abc")
        epoch = (await page(client))["epoch"]
        assert (await page(client, offset=2, epoch=epoch))["events"] == journal[2:]


@pytest.fixture
async def pruned(tmp_path):
    """A daemon whose sessions keep 4 kB of journal, and one session that had more."""
    with trio.fail_after(30):
        settings = {**holding(tmp_path), "journal_limit": 4096}
        async with open_test_daemon(tmp_path / "state", **settings) as daemon, api(daemon.url) as client:
            for number in range(8):
                body = {"message": f"go {number} " + "x" * 500, "session_id": "abc"}
                after = (await client.get("/api/sessions/abc")).json().get("offset", 0)
                await client.post("/api/chat", json=body)
                await wait_for(daemon, "abc", "ready_for_input", after)
            yield daemon, client


@pytest.mark.parametrize("ended", [False, True])
async def test_pages_name_the_gap_when_old_events_were_pruned(pruned, ended):
    _, client = pruned
    if ended:
        await client.delete("/api/sessions/abc")
    for limit in (1, 3, 1000):
        found, offset = [], 0
        while (one := await page(client, offset=offset, limit=limit))["events"]:
            found += one["events"]
            offset = one["next_offset"]
        gap, *held = found
        assert gap["event"] == "replay_gap"
        assert gap["data"]["from"] == 1
        assert gap["data"]["to"] > 1
        assert offsets(held) == list(range(gap["data"]["to"] + 1, offset + 1))
        assert held


async def test_stream_names_the_gap_when_old_events_were_pruned(pruned):
    daemon, client = pruned
    await client.delete("/api/sessions/abc")
    async with follow(daemon, "abc") as stream:
        (at, gap), *held = await stream.rest()
    assert (at, gap["event"], gap["data"]["from"]) == (None, "replay_gap", 1)
    assert [at for at, _ in held] == offsets([event for _, event in held])
    assert held[0][0] == gap["data"]["to"] + 1
    assert held[-1][1]["event"] == "session_end"


async def test_history_answers_while_it_is_shorter_than_the_journal_of_a_restarted_daemon(tmp_path):
    with trio.fail_after(30):
        settings = holding(tmp_path)
        async with open_test_daemon(tmp_path / "state", **settings) as daemon, api(daemon.url) as client:
            await client.post("/api/chat", json={"message": "hold on", "session_id": "abc"})
            await wait_for(daemon, "abc", "turn_start")
        async with open_test_daemon(tmp_path / "state", **settings) as daemon, api(daemon.url) as client:
            one = await page(client)
            assert one["events"][-1]["event"] == "session_end"
            assert one["events"][-1]["data"]["reason"] == "shutdown"
            async with follow(daemon, "abc", f"?offset={one['offset'] - 1}") as stream:
                assert [at for at, _ in await stream.rest()] == [one["offset"]]


# --- as a stream


async def test_stream_of_an_ended_session_is_its_journal(daemon):
    async with api(daemon.url) as client:
        journal = await ended_session(daemon, client, "abc")
        async with follow(daemon, "abc") as stream:
            found = await stream.rest()
        assert [event for _, event in found] == journal
        assert [at for at, _ in found] == offsets(journal)
        headers = dict(stream.response.headers)
        assert (headers[b"cache-control"], headers[b"x-accel-buffering"]) == (b"no-store", b"no")


async def test_stream_follows_live_and_ends_with_the_session(daemon):
    async with api(daemon.url) as client:
        await client.post("/api/chat", json={"message": "hold on", "session_id": "abc"})
        async with follow(daemon, "abc") as stream:
            found = await stream.until("turn_start")
            await client.post("/api/chat", json={"message": "go", "session_id": "abc"})
            found += await stream.until("prompt_queued")
            await client.post("/api/sessions/abc/interrupt")
            found += await stream.until("ready_for_input")
            await client.delete("/api/sessions/abc")
            found += await stream.rest()
        assert [at for at, _ in found] == list(range(1, len(found) + 1))
        assert found[-1][1]["event"] == "session_end"
        assert [event for _, event in found] == (await page(client))["events"]


async def test_stream_resumes_exactly_after_the_last_event_id(daemon):
    async with api(daemon.url) as client:
        journal = await ended_session(daemon, client, "abc")
        for last in range(len(journal)):
            async with follow(daemon, "abc", "?offset=1", Last_Event_ID=str(last)) as stream:
                assert [event for _, event in await stream.rest()] == journal[last:]


async def test_stream_tells_a_browser_not_to_come_back_when_nothing_will_follow(daemon):
    async with api(daemon.url) as client:
        journal = await ended_session(daemon, client, "abc")
        headers = {"Accept": "Text/Event-Stream", "Last-Event-ID": str(len(journal))}
        assert (await client.get(EVENTS, headers=headers)).status_code == 204
        other = await client.get(EVENTS + "?epoch=other", headers=headers)
        assert (other.status_code, "replay_reset" in other.text) == (200, True)


async def test_stream_begins_anew_when_the_last_event_id_is_of_another_journal(daemon):
    async with api(daemon.url) as client:
        journal = await ended_session(daemon, client, "abc")
        for query, last in (("?epoch=other", 1), ("", 1000)):
            async with follow(daemon, "abc", query, Last_Event_ID=str(last)) as stream:
                (at, reset), *others = await stream.rest()
            assert (at, reset["event"]) == (None, "replay_reset")
            assert [event for _, event in others] == journal


async def test_stream_is_refused_when_the_last_event_id_is_no_offset(daemon):
    async with api(daemon.url) as client:
        await ended_session(daemon, client, "abc")
        for last in ("x", "-1", "1.5", "1 2", "9" * 19, str(1 << 53), "\u0661"):
            headers = {"Accept": "text/event-stream", "Last-Event-ID": last.encode()}
            assert_problem(await client.get(EVENTS, headers=headers), 400, "invalid_request")


async def test_stream_of_an_unknown_session_is_refused(daemon):
    async with api(daemon.url) as client:
        response = await client.get(EVENTS, headers={"Accept": "text/event-stream"})
        assert_problem(response, 404, "session_not_found")


async def test_stream_of_a_session_whose_journal_is_gone_is_refused(daemon):
    async with api(daemon.url) as client:
        await ended_session(daemon, client, "abc")
        folder = daemon.registry.config.session_dir("abc") / "journal"
        folder.rename(folder.with_name("elsewhere"))
        for accept in ("application/json", "text/event-stream"):
            assert_problem(await client.get(EVENTS, headers={"Accept": accept}), 404, "session_not_found")


async def test_stream_gives_signs_of_life_while_nothing_happens(tmp_path):
    with trio.fail_after(30):
        settings = {**holding(tmp_path), "sse_interval": 0.01}
        async with open_test_daemon(tmp_path / "state", **settings) as daemon, api(daemon.url) as client:
            await client.post("/api/chat", json={"message": "hold on", "session_id": "abc"})
            async with follow(daemon, "abc") as stream:
                await stream.until("turn_start")
                assert b": still here\n\n" in await read_until(stream.socket, b": still here\n\n")


async def test_leaving_a_stream_frees_everything(daemon):
    async with api(daemon.url) as client:
        await client.post("/api/chat", json={"message": "hold on", "session_id": "abc"})
        await ended_session(daemon, client, "old")
        await wait_for(daemon, "abc", "turn_start")
        tasks = trio.lowlevel.current_statistics().tasks_living
        before = len(descriptors())
        for session_id in ("abc", "abc", "old"):
            async with follow(daemon, session_id) as stream:
                await stream.next()
        with trio.fail_after(5):
            while trio.lowlevel.current_statistics().tasks_living > tasks or len(descriptors()) > before:
                await trio.sleep(0.005)


async def test_reader_that_stalls_delays_neither_others_nor_the_end(tmp_path):
    settings = {**holding(tmp_path), "api_grace": 0.2, "drain_grace": 0.2, "max_message": 400_000}
    with trio.fail_after(30):
        async with open_test_daemon(tmp_path / "state", **settings) as daemon, api(daemon.url) as client:
            await client.post("/api/chat", json={"message": "hold on", "session_id": "abc"})
            await wait_for(daemon, "abc", "turn_start")
            stalled = await trio.open_tcp_stream("127.0.0.1", port_of(daemon))
            await stalled.send_all(head("GET", EVENTS, "Accept: text/event-stream"))
            for number in range(30):  # 12 MB: more than the sockets between them hold
                body = {"message": f"{number}" + "x" * 399_000, "session_id": "abc"}
                assert (await client.post("/api/chat", json=body)).status_code == 200
            async with follow(daemon, "abc") as stream:
                with trio.fail_after(5):
                    found = [at for at, _ in [await stream.next() for _ in range(33)]]
            assert found == list(range(1, 34))
            started = trio.current_time()
            assert (await client.delete("/api/sessions/abc")).json()["status"] == "stopped"
            assert trio.current_time() - started < 2
            await client.post("/api/chat", json={"message": "hold on", "session_id": "abc"})
            started = trio.current_time()
        assert trio.current_time() - started < 3
        await stalled.aclose()
