import shutil
from collections import Counter
from contextlib import closing
from functools import partial

import pytest
import trio
from trio.testing import wait_all_tasks_blocked
from trio_websocket import HandshakeError

from daemon.clients.follow import follow, open_client
from daemon.errors import Bug, CallerError
from daemon.journal.store import Store
from daemon.sessions.lifecycle import Reason
from daemon.sessions.record import Record
from daemon.sessions.registry import Asked
from tests.sessions.house import (
    Crashes,
    Tunnels,
    answers,
    history,
    journaled_until,
    nothing_left,
    open_sessions,
    write_script,
)
from tests.support import api, events_until, journaled, kinds, leftovers
from tunnel import TunnelError

HELLO = '[[turn]]\n[[turn.step]]\ntext = "Hello."'
SILENT = (
    '[[turn]]\n[[turn.step]]\ntext = "I begin to speak and then"\nfault = { kind = "silence", after = 4, times = 99 }'
)
# What is answered depends on the whole conversation that a request carries.
MEMORY = """
[[turn]]
once = true
[[turn.step]]
tool = [{ name = "write", input = { file_path = "a.txt", content = "kept" } }]
[[turn.step]]
text = "We have never met."
[[turn]]
[[turn.step]]
tool = [{ name = "read", input = { file_path = "a.txt" } }]
[[turn.step]]
text = "We have met: {{prompt}}"
"""
HI = Asked(message="hi", session_id="abc")


def more(message, **options):
    return Asked(message=message, session_id="abc", **options)


@pytest.fixture
def hello(tmp_path):
    return write_script(tmp_path, HELLO)


@pytest.fixture
def silent(tmp_path):
    return write_script(tmp_path, SILENT)


# --- one session, once


async def test_session_is_created_once_however_many_requests_race(tmp_path, hello):
    async with open_sessions(tmp_path, script=hello) as registry:
        said = Counter()

        async def ask(number: int) -> None:
            said[(await registry.chat(more(f"message {number}"))).accepted] += 1

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(ask, number)
        events = await journaled_until(registry, "abc", "turn_complete", 20)
    assert said == {"created": 1, "queued": 19}
    assert kinds(events).count("session_start") == 1
    prompts = [event["data"]["prompt"] for event in events if event["event"] == "turn_start"]
    assert sorted(prompts) == sorted(f"message {number}" for number in range(20))


async def test_session_without_an_id_gets_one_of_its_own(tmp_path, hello):
    async with open_sessions(tmp_path, script=hello) as registry:
        first, second = [(await registry.chat(Asked(message="hi"))).view.session_id for _ in range(2)]
    assert first != second


async def test_same_text_is_a_duplicate_while_it_waits_or_is_worked_on_and_not_later(tmp_path, hello):
    async with open_sessions(tmp_path, Tunnels(), script=hello) as registry:
        assert (await registry.chat(HI)).accepted == "created"
        assert (await registry.chat(HI)).accepted == "duplicate"
        assert (await registry.chat(more("other"))).accepted == "queued"
        assert (await registry.chat(more("other"))).accepted == "duplicate"
        await journaled_until(registry, "abc", "ready_for_input", 2)
        assert (await registry.chat(HI)).accepted == "queued"
        events = await journaled_until(registry, "abc", "ready_for_input", 3)
    assert [event["data"]["prompt"] for event in events if event["event"] == "turn_start"] == ["hi", "other", "hi"]


async def test_same_text_with_another_message_id_is_another_prompt(tmp_path, hello):
    async with open_sessions(tmp_path, script=hello) as registry:
        await registry.chat(more("hi", message_id="m1"))
        assert (await registry.chat(more("hi", message_id="m2"))).accepted == "queued"
        assert (await registry.chat(more("other", message_id="m2"))).accepted == "duplicate"
        await journaled_until(registry, "abc", "ready_for_input", 2)


async def test_prompts_are_journaled_with_their_place_in_the_queue(tmp_path, silent):
    async with open_sessions(tmp_path, script=silent) as registry:
        await registry.chat(HI)
        await registry.chat(more("b", message_id="mb"))  # before there is a journal
        await journaled_until(registry, "abc", "turn_start")
        assert (await registry.chat(more("c", message_id="mc"))).view.queued_prompts == 2
        events = await journaled_until(registry, "abc", "prompt_queued", 2)
    queued = [tuple(event["data"].values()) for event in events if event["event"] == "prompt_queued"]
    assert queued == [("mb", "b", 2), ("mc", "c", 2)]


async def test_started_message_is_a_duplicate_for_ever_and_an_unstarted_one_can_be_sent_again(tmp_path, silent):
    async with open_sessions(tmp_path, script=silent) as registry:
        await registry.chat(more("hi", message_id="started"))
        await journaled_until(registry, "abc", "turn_start")
        await registry.chat(more("later", message_id="waiting"))
        assert (await registry.chat(more("later", message_id="waiting"))).accepted == "duplicate"
        await registry.stop("abc")
        said = await registry.chat(more("hi", message_id="started"))
        assert (said.accepted, said.view.status) == ("duplicate", "stopped")
        assert (await registry.chat(more("later", message_id="waiting"))).accepted == "queued"
        await journaled_until(registry, "abc", "turn_start", 2)
        await registry.stop("abc")
    async with open_sessions(tmp_path, script=silent) as registry:  # another daemon
        for name in ("started", "waiting"):
            assert (await registry.chat(more("hi", message_id=name))).accepted == "duplicate"
        assert registry.get("abc").turn == 2


async def test_message_to_a_session_that_is_ending_opens_it_again(tmp_path, silent):
    async with open_sessions(tmp_path, script=silent) as registry:
        await registry.chat(HI)
        url = (await registry.wait("abc", 5)).websocket_url
        async with trio.open_nursery() as nursery:
            nursery.start_soon(registry.stop, "abc")
            while registry.get("abc").status != "stopping":
                await trio.lowlevel.checkpoint()
            said = await registry.chat(more("hi"))
            assert (said.accepted, said.view.status) == ("queued", "initializing")
        assert (await registry.wait("abc", 5)).websocket_url != url
        events = await journaled_until(registry, "abc", "turn_start", 2)
    ends = [event["offset"] for event in events if event["event"] in {"session_start", "session_end"}]
    assert [kinds(events)[offset - 1] for offset in ends] == ["session_start", "session_end", "session_start"]


async def test_too_many_sessions_are_refused_and_nothing_is_made(tmp_path, hello):
    async with open_sessions(tmp_path, script=hello, max_sessions=2) as registry:
        await registry.chat(HI)
        await registry.chat(Asked(message="hi", session_id="second"))
        with pytest.raises(CallerError) as refused:
            await registry.chat(Asked(message="hi", session_id="third"))
        assert (refused.value.code, refused.value.status, refused.value.retry_after) == ("too_many_sessions", 429, 10)
        with pytest.raises(CallerError, match="there is no session third"):
            registry.get("third")
        assert (await registry.chat(more("one that is alive"))).accepted == "queued"
        await registry.stop("second")
        assert (await registry.chat(Asked(message="hi", session_id="third"))).accepted == "created"


async def test_model_that_nobody_can_use_is_refused_and_nothing_is_made(tmp_path, hello):
    async with open_sessions(tmp_path, script=hello) as registry:
        with pytest.raises(CallerError) as refused:
            await registry.chat(more("hi", model="claude-sonnet-5-5"))
        assert (refused.value.code, refused.value.status) == ("model_unavailable", 503)
        assert registry.list([], None, 10) == ([], 0, None)


async def test_too_many_prompts_are_refused_and_the_message_id_stays_free(tmp_path, silent):
    async with open_sessions(tmp_path, script=silent, max_prompts=1) as registry:
        await registry.chat(HI)
        await journaled_until(registry, "abc", "turn_start")
        await registry.chat(more("b"))
        with pytest.raises(CallerError) as refused:
            await registry.chat(more("c", message_id="mc"))
        assert refused.value.code == "too_many_prompts"
        registry.interrupt("abc")
        await journaled_until(registry, "abc", "turn_start", 2)
        assert (await registry.chat(more("c", message_id="mc"))).accepted == "queued"


# --- opening a session again


async def end_by(how, registry, tunnels):
    """Let a session that is ready for input end in one of the ways there are; `interrupted` is left to the daemon's end."""
    session = registry._live["abc"]
    if how == "stopped":
        session.stop()
    elif how == "error":
        tunnels.crash.set()
    elif how == "timeout":
        session.scope.deadline = trio.current_time()
    if how != "interrupted":
        await session.ended.wait()


@pytest.mark.parametrize("how", ["stopped", "error", "timeout", "interrupted", "crash"])
async def test_session_goes_on_where_it_ended(tmp_path, how):
    tunnels = Crashes(TunnelError("lost", "the tunnel is gone"))
    script = write_script(tmp_path, MEMORY)
    first, copy = tmp_path / "first", tmp_path / "copy"
    async with open_sessions(first, tunnels, script=script) as registry:
        await registry.chat(more("hi", system="be brief", timeout=100.0, token_budget=5000))
        old = await registry.wait("abc", 5)
        await journaled_until(registry, "abc", "ready_for_input")
        if how == "crash":  # what a disk holds when the power goes
            shutil.copytree(first, copy)
        else:
            await end_by(how, registry, tunnels)
    async with open_sessions(copy if how == "crash" else first, Tunnels(), script=script) as registry:
        ended = registry.get("abc")
        assert ended.status == {"crash": "interrupted"}.get(how, how)
        assert (ended.error.code if ended.error else None) == ("lost" if how == "error" else None)
        before = await history(registry, "abc")
        assert before[-1]["data"]["reason"] == {"crash": "interrupted", "interrupted": "shutdown"}.get(how, how)
        assert (await registry.chat(more("again"))).accepted == "queued"
        view = await registry.wait("abc", 5)
        assert view.error is None
        await journaled_until(registry, "abc", "ready_for_input", 2)
        settings = registry._live["abc"].record.settings
        assert (settings.system, settings.timeout, settings.token_budget) == ("be brief", 100.0, 5000)
        events = await history(registry, "abc")
        with pytest.raises(HandshakeError):
            await follow(view.websocket_url.partition("?")[0] + "?" + old.websocket_url.partition("?")[2], print)
        with pytest.raises(OSError, match="all attempts to connect"):
            await follow(old.websocket_url, print)
    assert events[: len(before)] == before
    assert [event["offset"] for event in events] == list(range(1, len(events) + 1))
    assert view.epoch == ended.epoch == old.epoch
    assert (ended.offset, ended.turn, view.created_at) == (len(before), 1, old.created_at)
    turn = [event["data"] for event in events[len(before) :] if event["event"] == "turn_start"]
    assert [data["turn"] for data in turn] == [2]
    texts = [event["data"]["text"] for event in events if event["event"] == "claude_text"]
    assert texts == ["We have never met.", "We have met: again"]
    results = [event["data"]["result"] for event in events if event["event"] == "claude_tool_result"]
    assert results[-1] == "kept"


async def test_session_opened_again_may_be_given_other_settings(tmp_path, hello):
    async with open_sessions(tmp_path, script=hello) as registry:
        await registry.chat(more("hi", system="be brief", timeout=100.0, token_budget=5000))
        await registry.stop("abc")
        await registry.chat(more("again", system="", timeout=50.0, token_budget=7000))
        settings = registry._live["abc"].record.settings
        assert (settings.system, settings.timeout, settings.token_budget) == ("", 50.0, 7000)


# --- sessions apart from each other


@pytest.mark.parametrize("error", [Bug("never"), TunnelError("lost", "gone"), ValueError("?")], ids=repr)
async def test_crash_of_one_session_leaves_the_streams_of_others_untouched(tmp_path, hello, error):
    tunnels = Crashes(error, which=1)
    async with open_sessions(tmp_path, tunnels, script=hello) as registry:
        found = {}
        for name in ("first", "crashing", "third"):
            await registry.chat(Asked(message="hi", session_id=name))
            found[name] = []
            await journaled_until(registry, name, "ready_for_input")

        async def follow_session(name: str) -> None:
            found[name].append(await follow(registry.get(name).websocket_url, found[name].append))

        async with trio.open_nursery() as nursery:
            for name in found:
                nursery.start_soon(follow_session, name)
            while registry.counts()["clients"] < 3:
                await trio.lowlevel.checkpoint()
            tunnels.crash.set()
            await registry._live["crashing"].ended.wait()
            for name in ("first", "third"):
                await registry.chat(Asked(message="more", session_id=name))
                await journaled_until(registry, name, "ready_for_input", 2)
                assert registry.get(name).connected_clients == 1
                await registry.stop(name)
    for name in ("first", "third"):
        *events, code = found[name]
        assert code == 1000
        assert [event["offset"] for event in journaled(events)] == list(range(1, len(journaled(events)) + 1))
        assert kinds(journaled(events)).count("turn_complete") == 2
    *events, code = found["crashing"]
    assert (events[-1]["event"], events[-1]["data"]["reason"], code) == ("session_end", "error", 1000)


async def test_twenty_sessions_at_once_each_tell_their_own_clients_only_their_own(tmp_path):
    script = write_script(tmp_path, '[[turn]]\n[[turn.step]]\ntext = "You said {{prompt}} and nothing else."')
    names = [f"session-{number}" for number in range(20)]
    async with open_sessions(tmp_path, Tunnels(), script=script, max_sessions=20) as registry:
        before = leftovers()
        found = {name: [] for name in names}

        async def live(name: str) -> None:
            await registry.chat(Asked(message=f"I am {name}.", session_id=name))
            url = (await registry.wait(name, 20)).websocket_url

            def on_event(event) -> None:
                found[name].append(event)
                if event["event"] == "ready_for_input":
                    registry._live[name].stop()

            assert await follow(url, on_event) == 1000
            await registry.stop(name)

        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(live, name)
        await nothing_left(before)
        assert registry.counts()["sessions"] == 0
        assert registry.statuses()["stopped"] == 20
    for name, events in found.items():
        assert {event["session_id"] for event in events} == {name}
        assert [event["offset"] for event in journaled(events)] == list(range(1, len(journaled(events)) + 1))
        [text] = [event["data"]["text"] for event in events if event["event"] == "claude_text"]
        assert text == f"You said I am {name}. and nothing else."


# --- the end of the daemon


async def test_leaving_tells_every_client_that_the_daemon_shuts_down(tmp_path, silent):
    closed = []

    async def live(registry, name: str) -> None:
        closed.append(await follow(registry.get(name).websocket_url, found[name].append))

    found = {"abc": [], "other": []}
    async with trio.open_nursery() as nursery:
        async with open_sessions(tmp_path, script=silent) as registry:
            for name in found:
                await registry.chat(Asked(message="hi", session_id=name))
                await journaled_until(registry, name, "turn_start")
                nursery.start_soon(live, registry, name)
            while registry.counts()["clients"] < 2:
                await trio.lowlevel.checkpoint()
        with trio.fail_after(5):
            while len(closed) < 2:
                await trio.sleep(0.001)
    assert closed == [1001, 1001]
    for events in found.values():
        assert kinds(events)[-2:] == ["turn_complete", "session_end"]
        assert events[-1]["data"]["reason"] == "shutdown"


async def test_cancelling_everything_ends_sessions_as_a_shutdown_does(tmp_path, silent):
    found, closed = [], []

    async def live(registry) -> None:
        closed.append(await follow(registry.get("abc").websocket_url, found.append))

    tunnels = Tunnels()
    async with trio.open_nursery() as clients:
        with trio.CancelScope() as everything:
            async with open_sessions(tmp_path, tunnels, script=silent) as registry:
                await registry.chat(HI)
                await journaled_until(registry, "abc", "turn_start")
                clients.start_soon(live, registry)
                while registry.counts()["clients"] < 1:
                    await trio.lowlevel.checkpoint()
                everything.cancel()
        assert everything.cancelled_caught
        assert not tunnels.alive
        assert not answers(tunnels.ports[0])
        with trio.fail_after(5):
            while not closed:
                await trio.sleep(0.001)
    assert closed == [1001]
    assert found[-1]["data"]["reason"] == "shutdown"
    with closing(Store(tmp_path / "footlight.db")) as store:
        record = Record.decode(store.load("abc"))
    assert (record.status, record.offset) == ("interrupted", found[-1]["offset"])


async def test_no_message_is_taken_while_the_daemon_shuts_down(tmp_path, silent):
    async with open_sessions(tmp_path, script=silent) as registry:
        await registry.chat(HI)
        await journaled_until(registry, "abc", "turn_start")
        refused = []

        async def ask(session_id: str) -> None:
            try:
                await registry.chat(Asked(message="more", session_id=session_id))
            except CallerError as error:
                refused.append((error.code, error.status, error.retry_after))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(registry.stop_all)
            while not registry.closing:
                await trio.lowlevel.checkpoint()
            nursery.start_soon(ask, "abc")  # waits until it is gone, and is refused then
            nursery.start_soon(ask, "new")
        assert refused == [("shutting_down", 503, 5)] * 2


# --- looking at sessions, and deleting them


async def test_unknown_session_is_not_found_whatever_is_asked_of_it(tmp_path, hello):
    async with open_sessions(tmp_path, script=hello) as registry:

        async def read_history() -> None:
            await history(registry, "nobody")

        async def get() -> None:
            registry.get("nobody")

        async def interrupt() -> None:
            registry.interrupt("nobody")

        calls = [get, interrupt, read_history, partial(registry.wait, "nobody", 1), partial(registry.stop, "nobody")]
        calls += [partial(registry.delete, "nobody", purge=purge) for purge in (False, True)]
        for call in calls:
            with pytest.raises(CallerError) as refused:
                await call()
            assert (refused.value.code, refused.value.status) == ("session_not_found", 404)


async def test_session_that_has_not_begun_to_run_is_stopped_whatever_the_reason(tmp_path, hello):
    async with open_sessions(tmp_path, script=hello) as registry:
        before = leftovers()
        await registry.chat(HI)
        view = await registry.stop("abc", Reason.completed)
        assert view.status == "stopped"
        assert (await history(registry, "abc"))[-1]["data"]["reason"] == "stopped"
        await nothing_left(before)


async def test_wait_answers_as_soon_as_there_is_a_url_or_an_end(tmp_path, hello):
    async with open_sessions(tmp_path, script=hello) as registry:
        await registry.chat(HI)
        assert (await registry.wait("abc", 0)).websocket_url is None
        assert (await registry.wait("abc", 60)).status == "running"
        await registry.stop("abc")
        assert (await registry.wait("abc", 60)).status == "stopped"


async def test_stop_returns_the_run_that_it_ended_even_if_a_message_opens_the_next_one(tmp_path, silent):
    async with open_sessions(tmp_path, script=silent) as registry:
        await registry.chat(HI)
        await journaled_until(registry, "abc", "turn_start")
        views = []

        async def stop() -> None:
            views.append(await registry.stop("abc"))

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(stop)
            while not registry._live["abc"].ending:
                await trio.lowlevel.checkpoint()
            nursery.start_soon(registry.chat, more("again"))
        assert [view.status for view in views] == ["stopped"] * 4
        await journaled_until(registry, "abc", "turn_start", 2)


async def test_purge_deletes_all_that_is_kept(tmp_path, hello):
    async with open_sessions(tmp_path, script=hello) as registry:
        await registry.chat(more("hi", message_id="m1"))
        await journaled_until(registry, "abc", "ready_for_input")
        view = await registry.delete("abc", purge=True)
        assert view.status == "stopped"
        assert not (tmp_path / "sessions" / "abc").exists()
        with pytest.raises(CallerError, match="no session abc"):
            registry.get("abc")
        assert (await registry.chat(more("hi", message_id="m1"))).accepted == "created"
        events = await journaled_until(registry, "abc", "ready_for_input")
    assert kinds(events)[0] == "session_start"
    assert kinds(events).count("session_start") == 1


@pytest.mark.parametrize("trial", range(6))  # Trio runs those who wait for the same end in any order
async def test_purge_never_deletes_under_a_session_that_a_message_opened_meanwhile(tmp_path, silent, trial):
    async with open_sessions(tmp_path, script=silent) as registry:
        await registry.chat(HI)
        await journaled_until(registry, "abc", "turn_start")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(registry.delete, "abc", purge=True))
            while not registry._live["abc"].ending:
                await trio.lowlevel.checkpoint()
            nursery.start_soon(registry.chat, more("again"))
        await journaled_until(registry, "abc", "turn_start")
        assert registry.get("abc").created_at
        assert (tmp_path / "sessions" / "abc" / "journal").exists()
        assert kinds(await history(registry, "abc")).count("session_start") == 1


async def test_two_purges_at_once_delete_once(tmp_path, silent):
    async with open_sessions(tmp_path, script=silent) as registry:
        await registry.chat(HI)
        said = []

        async def purge() -> None:
            try:
                said.append((await registry.delete("abc", purge=True)).status)
            except CallerError as error:
                said.append(error.code)
            assert not (tmp_path / "sessions" / "abc").exists()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(purge)
            nursery.start_soon(purge)
    assert said == ["stopped", "session_not_found"]


async def test_list_is_newest_first_in_pages_and_by_status(tmp_path, hello):
    async with open_sessions(tmp_path, script=hello) as registry:
        for name in "abcde":
            await registry.chat(Asked(message="hi", session_id=name))
        await registry.stop("b")
        await registry.stop("d")
        pages, cursor = [], None
        while True:
            views, total, cursor = registry.list([], cursor, 2)
            assert total == 5
            pages.append("".join(view.session_id for view in views))
            if cursor is None:
                break
        assert pages == ["ed", "cb", "a"]
        views, total, cursor = registry.list(["stopped"], None, 10)
        assert ([view.session_id for view in views], total, cursor) == (["d", "b"], 2, None)
        await registry.wait("e", 5)
        assert registry.list([], None, 1)[0][0].websocket_url is not None
        assert registry.statuses()["stopped"] == 2


async def test_counts_add_up_over_sessions_that_are_gone(tmp_path, hello):
    async with open_sessions(tmp_path, script=hello) as registry:
        await registry.chat(HI)
        await journaled_until(registry, "abc", "ready_for_input")
        await registry.stop("abc")
        await registry.chat(more("again"))
        await journaled_until(registry, "abc", "ready_for_input", 2)
        async with open_client((await registry.wait("abc", 5)).websocket_url) as ws:
            await events_until(ws, lambda event: event["event"] == "ready_for_input")
            counts = registry.counts()
            assert counts == {
                "sessions": 1,
                "clients": 1,
                "queued_prompts": 0,
                "created": 2,
                "events": registry.get("abc").offset,
            }


async def test_history_follows_a_live_session_and_can_be_read_after_its_end(tmp_path, silent):
    async with open_sessions(tmp_path, script=silent) as registry:
        before = leftovers()
        await registry.chat(HI)
        await journaled_until(registry, "abc", "turn_start")
        async with trio.open_nursery() as nursery:
            async with registry.history("abc") as journal:
                nursery.start_soon(registry.stop, "abc")
                while not journal.ended:
                    await journal.wait_change()
                last = journal.read(journal.offset - 1)
                async with registry.history("abc") as late:  # who comes now gets one of their own
                    assert late is not journal
                    assert late.read(late.offset - 1) == last
                await wait_all_tasks_blocked()
                assert registry.get("abc").status == "stopping"  # it stays open for whoever reads it
                assert journal.read(journal.offset - 1) == last
        assert kinds(await history(registry, "abc"))[-1] == "session_end"
        await nothing_left(before)


async def test_reopened_session_says_at_once_that_its_site_can_be_opened(daemon):
    async with api(daemon.url) as client:
        for run in (1, 2):
            await client.post("/api/chat", json={"session_id": "abc", "message": f"build {run}"})
            await client.get("/api/sessions/abc", params={"wait": 10})
            with trio.fail_after(20):
                while (await client.get("/api/sessions/abc")).json()["turn"] < run:
                    await trio.sleep(0.01)
                events = (await client.get("/api/sessions/abc/events")).json()["events"]
                while sum(event["event"] == "preview_ready" for event in events) < run:
                    events = (await client.get("/api/sessions/abc/events")).json()["events"]
            await client.delete("/api/sessions/abc")
    after = [event["event"] for event in events]
    assert after[len(after) - after[::-1].index("websocket_ready")] == "preview_ready"
