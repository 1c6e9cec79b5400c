from contextlib import asynccontextmanager, suppress

import pytest
import trio

from daemon.testing import open_test_daemon
from tests.api.calls import assert_problem, ended_session, follow, holding, made, wait_for
from tests.support import api
from tunnel import Tunnel, TunnelError

CHAT = "/api/chat"


async def chat(client, message="hold on", **fields):
    return await client.post(CHAT, json={"message": message, **fields})


async def session(client, session_id, **params):
    return (await client.get(f"/api/sessions/{session_id}", params=params)).json()


async def events(client, session_id):
    return (await client.get(f"/api/sessions/{session_id}/events")).json()["events"]


async def race(requests):
    """Send all of them at the same moment."""
    answers = []

    async def send(request):
        answers.append(await request())

    async with trio.open_nursery() as nursery:
        for request in requests:
            nursery.start_soon(send, request)
    return answers


# --- making one


async def test_chat_makes_a_session_when_there_is_none(daemon):
    async with api(daemon.url) as client:
        response = await chat(client, session_id="abc")
        assert (response.status_code, response.json()["accepted"]) == (201, "created")
        view = response.json()
        assert (view["session_id"], view["status"], view["websocket_url"]) == ("abc", "initializing", None)
        assert view["message"]
        assert response.headers["Cache-Control"] == "no-store"


async def test_chat_names_the_session_when_no_id_is_given(daemon):
    async with api(daemon.url) as client:
        first, second = (await chat(client)).json(), (await chat(client)).json()
        assert first["accepted"] == second["accepted"] == "created"
        assert first["session_id"] != second["session_id"]


async def test_chat_queues_a_prompt_when_the_session_is_alive(daemon):
    async with api(daemon.url) as client:
        await chat(client, session_id="abc")
        await wait_for(daemon, "abc", "turn_start")
        response = await chat(client, "and then", session_id="abc")
        assert (response.status_code, response.json()["accepted"]) == (200, "queued")
        assert response.json()["queued_prompts"] == 1
        queued = [event["data"] for event in await events(client, "abc") if event["event"] == "prompt_queued"]
        assert [(one["prompt"], one["position"]) for one in queued] == [("and then", 1)]


async def test_same_text_is_a_duplicate_while_it_is_worked_on_and_a_prompt_afterwards(daemon):
    async with api(daemon.url) as client:
        await chat(client, session_id="abc")
        assert (await chat(client, session_id="abc")).json()["accepted"] == "duplicate"  # still starting
        await wait_for(daemon, "abc", "turn_start")
        response = await chat(client, session_id="abc")
        assert (response.status_code, response.json()["accepted"]) == (200, "duplicate")
        await client.post("/api/sessions/abc/interrupt")
        await wait_for(daemon, "abc", "ready_for_input")
        assert (await chat(client, session_id="abc")).json()["accepted"] == "queued"


async def test_same_text_is_a_duplicate_while_it_waits(daemon):
    async with api(daemon.url) as client:
        await chat(client, session_id="abc")
        await wait_for(daemon, "abc", "turn_start")
        accepted = [(await chat(client, "and then", session_id="abc")).json()["accepted"] for _ in range(3)]
        assert accepted == ["queued", "duplicate", "duplicate"]
        assert (await session(client, "abc"))["queued_prompts"] == 1


async def test_same_text_is_no_duplicate_when_it_has_a_message_id_of_its_own(daemon):
    async with api(daemon.url) as client:
        await chat(client, session_id="abc", message_id="1")
        assert (await chat(client, session_id="abc", message_id="2")).json()["accepted"] == "queued"


async def test_same_message_id_is_a_duplicate_whatever_its_text(daemon):
    async with api(daemon.url) as client:
        await chat(client, session_id="abc", message_id="1")
        for text in ("hold on", "something else"):
            response = await chat(client, text, session_id="abc", message_id="1")
            assert (response.status_code, response.json()["accepted"]) == (200, "duplicate")
        assert (await session(client, "abc"))["turn"] <= 1


async def test_same_message_id_is_a_duplicate_when_its_turn_is_over(daemon):
    async with api(daemon.url) as client:
        await chat(client, "go", session_id="abc", message_id="1")
        await wait_for(daemon, "abc", "ready_for_input")
        assert (await chat(client, "go", session_id="abc", message_id="1")).json()["accepted"] == "duplicate"


async def test_same_message_id_opens_nothing_when_the_session_has_ended(daemon):
    async with api(daemon.url) as client:
        await chat(client, "go", session_id="abc", message_id="1")
        await wait_for(daemon, "abc", "ready_for_input")
        await client.delete("/api/sessions/abc")
        before = made(daemon)
        response = await chat(client, "go", session_id="abc", message_id="1")
        assert (response.status_code, response.json()["accepted"]) == (200, "duplicate")
        assert response.json()["status"] == "stopped"
        assert made(daemon) == before


async def test_message_that_never_had_its_turn_is_taken_when_it_is_sent_again(daemon):
    async with api(daemon.url) as client:
        await chat(client, session_id="abc", message_id="1")
        await wait_for(daemon, "abc", "turn_start")
        await chat(client, "go", session_id="abc", message_id="2")
        await client.delete("/api/sessions/abc")
        assert (await chat(client, "go", session_id="abc", message_id="2")).json()["accepted"] == "queued"
        await wait_for(daemon, "abc", "turn_complete", after=(await session(client, "abc"))["offset"])


async def test_message_ids_of_one_session_mean_nothing_to_another(daemon):
    async with api(daemon.url) as client:
        answers = [await chat(client, session_id=session_id, message_id="1") for session_id in ("abc", "def")]
        assert [answer.json()["accepted"] for answer in answers] == ["created", "created"]


async def test_ended_session_is_opened_again_with_its_journal_under_a_new_url(daemon):
    async with api(daemon.url) as client:
        await chat(client, "go", session_id="abc")
        first = await session(client, "abc", wait=10)
        await wait_for(daemon, "abc", "ready_for_input")
        ended = (await client.delete("/api/sessions/abc")).json()
        response = await chat(client, "go on", session_id="abc")
        assert (response.status_code, response.json()["accepted"]) == (200, "queued")
        again = await session(client, "abc", wait=10)
        assert (again["status"], again["epoch"], again["created_at"]) == (
            "running",
            ended["epoch"],
            first["created_at"],
        )
        assert again["websocket_url"] != first["websocket_url"]
        assert again["offset"] > ended["offset"]


# --- sixty at once


@pytest.mark.parametrize("kind", ["the same text", "other texts", "message ids", "one message id"])
async def test_racing_requests_for_one_session_make_exactly_one(daemon, kind):
    fields = {
        "the same text": lambda _: {"message": "hold on"},
        "other texts": lambda number: {"message": f"hold {number}"},
        "message ids": lambda number: {"message": "hold on", "message_id": str(number)},
        "one message id": lambda number: {"message": f"hold {number}", "message_id": "1"},
    }[kind]
    others = "queued" if kind in {"other texts", "message ids"} else "duplicate"
    async with api(daemon.url) as client:
        requests = [
            lambda number=number: client.post(CHAT, json={"session_id": "abc", **fields(number)})
            for number in range(60)
        ]
        answers = await race(requests)
        accepted = [answer.json()["accepted"] for answer in answers]
        assert sorted(accepted) == sorted(["created", *[others] * 59])
        assert {answer.status_code for answer in answers if answer.json()["accepted"] != "created"} == {200}
        await wait_for(daemon, "abc", "turn_start")
        journal = await events(client, "abc")
        started = [event["event"] for event in journal if event["event"] in {"session_start", "websocket_ready"}]
        assert started == ["session_start", "websocket_ready"]
        assert daemon.registry.counts()["created"] == daemon.registry.counts()["sessions"] == 1
        assert (await session(client, "abc"))["queued_prompts"] == (59 if others == "queued" else 0)


async def test_racing_requests_without_an_id_make_one_session_each(daemon):
    async with api(daemon.url) as client:
        answers = await race([lambda: chat(client)] * 10)
        assert len({answer.json()["session_id"] for answer in answers}) == 10
        assert daemon.registry.counts()["sessions"] == 10


async def test_racing_requests_for_an_ended_session_open_it_once(daemon):
    async with api(daemon.url) as client:
        await ended_session(daemon, client, "abc")
        answers = await race([lambda: chat(client, session_id="abc")] * 30)
        assert sorted(answer.json()["accepted"] for answer in answers) == [*["duplicate"] * 29, "queued"]
        assert daemon.registry.counts()["sessions"] == 1


# --- refusals


async def test_chat_is_refused_when_too_many_sessions_are_alive(tmp_path):
    with trio.fail_after(30):
        async with (
            open_test_daemon(tmp_path / "state", max_sessions=2, **holding(tmp_path)) as daemon,
            api(daemon.url) as client,
        ):
            await ended_session(daemon, client, "old")
            for session_id in ("a", "b"):
                assert (await chat(client, session_id=session_id)).status_code == 201
                await wait_for(daemon, session_id, "turn_start")
            before = made(daemon)
            for session_id in ("c", "old"):
                response = await chat(client, session_id=session_id)
                assert_problem(response, 429, "too_many_sessions")
                assert int(response.headers["Retry-After"]) > 0
            assert made(daemon) == before
            assert (await chat(client, "more", session_id="a")).json()["accepted"] == "queued"
            await client.delete("/api/sessions/b")
            assert (await chat(client, session_id="c")).status_code == 201


async def test_chat_is_refused_when_too_many_prompts_wait(tmp_path):
    with trio.fail_after(30):
        async with (
            open_test_daemon(tmp_path / "state", max_prompts=2, **holding(tmp_path)) as daemon,
            api(daemon.url) as client,
        ):
            await chat(client, session_id="a")
            await wait_for(daemon, "a", "turn_start")
            for number in range(2):
                assert (await chat(client, f"go {number}", session_id="a")).status_code == 200
            response = await chat(client, "one more", session_id="a", message_id="kept")
            assert_problem(response, 429, "too_many_prompts")
            assert int(response.headers["Retry-After"]) > 0
            await client.post("/api/sessions/a/interrupt")
            await wait_for(daemon, "a", "ready_for_input")
            assert (await chat(client, "one more", session_id="a", message_id="kept")).json()["accepted"] == "queued"


async def test_chat_is_refused_when_its_model_has_no_key(daemon):
    async with api(daemon.url) as client:
        before = made(daemon)
        response = await chat(client, session_id="abc", model="claude-sonnet-5-5")
        assert "ANTHROPIC_API_KEY" in assert_problem(response, 503, "model_unavailable")["detail"]
        assert made(daemon) == before
        assert_problem(await client.get("/api/sessions/abc"), 404, "session_not_found")


async def test_chat_is_refused_when_the_daemon_is_shutting_down(daemon):
    async with api(daemon.url) as client:
        await chat(client, session_id="alive")
        await wait_for(daemon, "alive", "turn_start")
        with trio.fail_after(10):
            await daemon.registry.stop_all()
        before = made(daemon)
        for session_id in ("new", "alive"):
            response = await chat(client, session_id=session_id)
            assert_problem(response, 503, "shutting_down")
            assert int(response.headers["Retry-After"]) > 0
        assert made(daemon) == before
        assert (await session(client, "alive"))["status"] == "interrupted"


NOWHERE = [
    ("GET", "/api/sessions/nope"),
    ("GET", "/api/sessions/nope?wait=60"),
    ("GET", "/api/sessions/nope/events"),
    ("POST", "/api/sessions/nope/interrupt"),
    ("DELETE", "/api/sessions/nope"),
    ("DELETE", "/api/sessions/nope?purge=true"),
    ("GET", "/api/sessions/a%0Ab"),
    ("GET", "/api/sessions/%FF"),
    ("GET", "/api/sessions/" + "x" * 2000),
    ("DELETE", "/api/sessions/%2e?purge=true"),
    ("DELETE", "/api/sessions/%2e%2e?purge=true"),
]


async def test_unknown_session_is_not_found(daemon):
    async with api(daemon.url) as client:
        await ended_session(daemon, client, "kept")
        before = made(daemon)
        for method, path in NOWHERE:
            response = await client.request(method, path)
            assert response.status_code == 404, (method, path)
            assert_problem(response, 404, "session_not_found")
            assert made(daemon) == before


# --- looking at one


async def test_wait_answers_as_soon_as_the_url_is_set(daemon):
    async with api(daemon.url) as client:
        await chat(client, session_id="abc")
        with trio.fail_after(10):
            view = await session(client, "abc", wait=60)
        assert view["status"] == "running"
        for name, scheme in (
            ("websocket_url", "ws"),
            ("watch_url", "ws"),
            ("preview_url", "http"),
            ("health_url", "http"),
        ):
            assert view[name].startswith(scheme + "://127.0.0.1:")
            assert "token=" in view[name]
        with trio.fail_after(5):
            assert (await session(client, "abc", wait=60))["websocket_url"] == view["websocket_url"]
        async with api(view["health_url"]) as own:
            assert (await own.get("")).json()["status"] == "healthy"


async def test_wait_answers_at_once_when_the_session_has_ended(daemon):
    async with api(daemon.url) as client:
        await ended_session(daemon, client, "abc")
        with trio.fail_after(5):
            view = await session(client, "abc", wait=60)
        assert (view["status"], view["websocket_url"], view["preview_url"]) == ("stopped", None, None)


class NoTunnel:
    """A provider, at the network's edge, that takes for ever or refuses."""

    name = "none"

    def __init__(self, *, refuses: bool) -> None:
        self._refuses = refuses

    @asynccontextmanager
    async def open(self, entrance):
        if self._refuses:
            raise TunnelError("ERR_TEST", "no tunnel today")
        await trio.sleep_forever()
        yield Tunnel(f"http://127.0.0.1:{entrance.number}")


async def test_wait_is_bounded_when_no_url_comes(daemon):
    daemon.registry._tunnels = NoTunnel(refuses=False)
    async with api(daemon.url) as client:
        await chat(client, session_id="abc")
        started = trio.current_time()
        with trio.fail_after(10):
            view = await session(client, "abc", wait=0.05)
        assert trio.current_time() - started >= 0.05
        assert (view["status"], view["websocket_url"]) == ("initializing", None)


async def test_wait_answers_when_the_session_fails_before_its_url_is_set(daemon):
    daemon.registry._tunnels = NoTunnel(refuses=True)
    async with api(daemon.url) as client:
        await chat(client, session_id="abc")
        with trio.fail_after(10):
            view = await session(client, "abc", wait=60)
        assert (view["status"], view["websocket_url"]) == ("error", None)
        assert view["error"] == {"code": "ERR_TEST", "detail": "no tunnel today"}


async def test_wait_answers_when_the_session_is_ended_before_its_url_is_set(daemon):
    daemon.registry._tunnels = NoTunnel(refuses=False)
    async with api(daemon.url) as client, api(daemon.url) as other:
        await chat(client, session_id="abc")
        views = []

        async def look() -> None:
            views.append(await session(client, "abc", wait=60))

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(look)
                await other.delete("/api/sessions/abc")
        assert views[0]["status"] == "stopped"


# --- the list


async def test_list_is_newest_first_and_counts_all(daemon):
    async with api(daemon.url) as client:
        for session_id in ("a", "b", "c"):
            await chat(client, session_id=session_id)
        page = (await client.get("/api/sessions")).json()
        assert [view["session_id"] for view in page["sessions"]] == ["c", "b", "a"]
        assert (page["total"], page["next_cursor"]) == (3, None)
        await chat(client, "more", session_id="a")
        page = (await client.get("/api/sessions?limit=2")).json()
        assert [view["session_id"] for view in page["sessions"]] == ["c", "b"]
        assert page["total"] == 3


async def test_list_is_empty_at_first(daemon):
    async with api(daemon.url) as client:
        assert (await client.get("/api/sessions")).json() == {"sessions": [], "total": 0, "next_cursor": None}


async def test_list_shows_the_statuses_that_are_asked_for(daemon):
    async with api(daemon.url) as client:
        await ended_session(daemon, client, "done")
        await chat(client, session_id="alive")
        await session(client, "alive", wait=10)

        async def ids(status: str) -> list[str]:
            page = (await client.get("/api/sessions", params={"status": status})).json()
            assert page["total"] == len(page["sessions"])
            return [view["session_id"] for view in page["sessions"]]

        assert await ids("stopped") == ["done"]
        assert await ids("running") == ["alive"]
        assert await ids("running,stopped") == ["alive", "done"]
        assert await ids("error") == []
        assert await ids("") == ["alive", "done"]


@pytest.mark.parametrize("limit", [1, 2, 500])
async def test_list_pages_have_no_repeats_and_no_holes_while_sessions_are_added(daemon, limit):
    async with api(daemon.url) as client:
        for number in range(5):
            await chat(client, session_id=f"old{number}")
        seen, cursor, added = [], None, 0
        while True:
            params = {"limit": limit} | ({"cursor": cursor} if cursor else {})
            page = (await client.get("/api/sessions", params=params)).json()
            assert len(page["sessions"]) <= limit
            seen += [view["session_id"] for view in page["sessions"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
            await chat(client, session_id=f"new{added}")
            added += 1
        assert seen == [f"old{number}" for number in reversed(range(5))]


# --- ending one


async def test_delete_answers_only_when_port_and_clients_are_gone(daemon):
    async with api(daemon.url) as client:
        await chat(client, session_id="abc")
        view = await session(client, "abc", wait=10)
        port = int(view["health_url"].partition("127.0.0.1:")[2].partition("/")[0])
        async with await trio.open_tcp_stream("127.0.0.1", port) as idle:
            response = await client.delete("/api/sessions/abc")
            assert response.status_code == 200
            assert (response.json()["status"], response.json()["websocket_url"]) == ("stopped", None)
            assert daemon.registry.counts()["sessions"] == 0
            with pytest.raises(OSError, match="connect"):
                await trio.open_tcp_stream("127.0.0.1", port)
            with trio.fail_after(5), suppress(trio.BrokenResourceError):
                assert await idle.receive_some(1) == b""


async def test_delete_changes_nothing_when_the_session_has_ended(daemon):
    async with api(daemon.url) as client:
        journal = await ended_session(daemon, client, "abc")
        first = await session(client, "abc")
        assert (await client.delete("/api/sessions/abc")).json() == first
        assert await events(client, "abc") == journal


async def test_racing_deletes_all_answer_when_it_is_gone(daemon):
    async with api(daemon.url) as client:
        await chat(client, session_id="abc")
        await session(client, "abc", wait=10)
        answers = await race([lambda: client.delete("/api/sessions/abc")] * 10)
        assert {answer.json()["status"] for answer in answers} == {"stopped"}
        ends = [event for event in await events(client, "abc") if event["event"] == "session_end"]
        assert len(ends) == 1


async def test_purge_deletes_journal_and_workspace(daemon):
    async with api(daemon.url) as client:
        await ended_session(daemon, client, "kept")
        await chat(client, session_id="abc", message_id="1")
        await session(client, "abc", wait=10)
        home = daemon.registry.config.session_dir("abc")
        assert home.is_dir()
        response = await client.delete("/api/sessions/abc?purge=true")
        assert (response.status_code, response.json()["status"]) == (200, "stopped")
        assert not home.exists()
        for path in ("", "/events"):
            assert_problem(await client.get(f"/api/sessions/abc{path}"), 404, "session_not_found")
        assert (await client.get("/api/sessions")).json()["total"] == 1
        again = await chat(client, session_id="abc", message_id="1")
        assert (again.status_code, again.json()["accepted"]) == (201, "created")
        assert (await client.get("/api/sessions/kept/events")).status_code == 200


async def test_delete_without_purge_keeps_journal_and_workspace(daemon):
    async with api(daemon.url) as client:
        for query in ("", "?purge=false"):
            await chat(client, session_id="abc")
            await client.delete(f"/api/sessions/abc{query}")
            assert (daemon.registry.config.session_dir("abc") / "workspace").is_dir()
            assert await events(client, "abc")


@pytest.mark.parametrize("order", ["purge first", "chat first"])
async def test_purge_and_chat_that_race_leave_one_whole_session_or_none(daemon, order):
    async with api(daemon.url) as client:
        for number in range(6):
            name = f"s{number}"
            await chat(client, session_id=name)
            await session(client, name, wait=10)
            requests = [
                lambda name=name: client.delete(f"/api/sessions/{name}?purge=true"),
                *[lambda name=name: chat(client, "go on", session_id=name)] * 3,
            ]
            answers = await race(requests if order == "purge first" else requests[::-1])
            assert {answer.status_code for answer in answers} <= {200, 201, 404}
            home = daemon.registry.config.session_dir(name)
            response = await client.get(f"/api/sessions/{name}")
            if response.status_code == 404:
                assert not home.exists()
            else:
                view = await session(client, name, wait=10)
                assert view["status"] == "running", view
                assert (home / "workspace").is_dir()
                journal = await events(client, name)
                assert [event["offset"] for event in journal] == list(range(1, len(journal) + 1))


# --- the turn


async def test_interrupt_ends_the_turn_and_the_session_stays(daemon):
    async with api(daemon.url) as client:
        await chat(client, session_id="abc")
        async with follow(daemon, "abc") as stream:
            await stream.until("turn_start")
            response = await client.post("/api/sessions/abc/interrupt")
            assert (response.status_code, response.json()["status"]) == (200, "running")
            complete = (await stream.until("turn_complete"))[-1][1]
            assert complete["data"]["stop_reason"] == "interrupted"
            await stream.until("ready_for_input")
            assert (await chat(client, "go", session_id="abc")).json()["accepted"] == "queued"
            assert (await stream.until("turn_complete"))[-1][1]["data"]["stop_reason"] == "end_turn"


async def test_interrupt_does_nothing_when_no_turn_runs(daemon):
    async with api(daemon.url) as client:
        await chat(client, "go", session_id="abc")
        await wait_for(daemon, "abc", "ready_for_input")
        before = await events(client, "abc")
        assert (await client.post("/api/sessions/abc/interrupt")).status_code == 200
        assert await events(client, "abc") == before
        await client.delete("/api/sessions/abc")
        response = await client.post("/api/sessions/abc/interrupt")
        assert (response.status_code, response.json()["status"]) == (200, "stopped")
