"""One WebSocket, in memory; what needs real sockets is in test_client_sockets.py."""

import json

import msgspec
import pytest
import trio
import wsproto.events
from trio.testing import lockstep_stream_pair, wait_all_tasks_blocked
from trio_websocket import ConnectionClosed

from daemon.agent.deltas import Deltas
from daemon.clients.client import Place
from daemon.journal.ring import MOST_FRAMES
from tests.clients.room import RawClient, frame, handshake, open_room, rest_of
from tests.clients.test_commands import INVALID
from tests.support import events_until, journaled, kinds, next_event


@pytest.fixture
async def room(tmp_path):
    with open_room(tmp_path) as opened, trio.fail_after(60):
        yield opened


def offsets(events):
    return [event["offset"] for event in journaled(events)]


async def take(ws, count):
    return [await next_event(ws) for _ in range(count)]


async def alive(ws):
    """Whether the connection still answers; what comes before the answer is skipped."""
    await ws.send_message('{"type":"ping"}')
    await events_until(ws, lambda event: event["event"] == "pong")
    return True


# --- what a client is told first


async def test_connected_says_who_and_where_the_client_is(room):
    room.write_many(2)
    room.present.running_tools["t1"] = {"tool_use_id": "t1", "tool": "bash"}
    async with room.join() as ws:
        first = await next_event(ws)
    assert "offset" not in first
    assert (first["event"], first["session_id"]) == ("connected", "s1")
    assert first["data"] == {
        "client_id": 1,
        "role": "control",
        "epoch": room.journal.epoch,
        "offset": 2,
        "connected_clients": 1,
        "status": "running",
        "pending": {"approvals": [], "running_tools": [{"tool_use_id": "t1", "tool": "bash"}]},
    }


# --- replay and live


async def test_replay_and_live_are_one_sequence(room):
    room.write_many(3)
    async with room.join() as ws:
        await wait_all_tasks_blocked()
        room.write_many(3)
        assert offsets(await take(ws, 7)) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("ended", [True, False], ids=["ended", "live"])
async def test_resuming_at_every_offset_gives_exactly_what_follows(room, ended):
    total = 25
    for number in range(total if ended else total - 5):
        room.journal.append("turn_start", turn=number, prompt="p" * number, message_id=f"m{number}")
    room.journal.end() if ended else None
    found = {}

    async def resume(offset):
        async with room.join(offset=offset, epoch=room.journal.epoch) as ws:
            events, code, _ = await rest_of(ws)
        found[offset] = offsets(events), code, kinds(events)[0]

    async with trio.open_nursery() as nursery:
        last = total if ended else total - 5
        for offset in range(last + 1):
            nursery.start_soon(resume, offset)
        await wait_all_tasks_blocked()
        if not ended:
            room.write_many(5)
            await wait_all_tasks_blocked()
            room.journal.end()
    assert found == {at: (list(range(at + 1, total + 1)), 1000, "connected") for at in range(last + 1)}


async def test_early_and_late_clients_see_equal_journaled_events(room):
    seen = {}

    async def client(name):
        async with room.join() as ws:
            seen[name] = journaled((await rest_of(ws))[0])

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(client, number)
            await wait_all_tasks_blocked()
            room.write_many(7, f"text {number} ä")
            room.journal.publish("tool_output", tool_use_id="t", position=number, text="live only")
        await wait_all_tasks_blocked()
        room.journal.end()
    await client("afterwards")
    assert offsets(seen[0]) == list(range(1, 71))
    assert all(events == seen[0] for events in seen.values())


async def test_live_only_events_reach_who_is_there_and_nobody_later(room):
    async with room.join() as early:
        await next_event(early)
        await wait_all_tasks_blocked()
        room.journal.publish("tool_output", tool_use_id="t", position=0, text="now")
        assert (await next_event(early))["event"] == "tool_output"
        room.journal.end()
    async with room.join() as late:
        assert kinds((await rest_of(late))[0]) == ["connected"]


@pytest.mark.parametrize(("code", "reason"), [(1000, "the session has ended"), (1001, "the daemon shuts down")])
async def test_the_end_of_the_journal_closes_with_its_code(room, code, reason):
    room.hub.close_code = code
    async with room.join() as one, room.join(room.tokens.watch) as two:
        await next_event(one)
        await next_event(two)
        await wait_all_tasks_blocked()
        room.journal.append("session_end", reason="stopped", turn_count=0, detail=None, processes_killed=0)
        room.journal.end()
        for ws in (one, two):
            events, *closed = await rest_of(ws)
            assert kinds(events)[-1] == "session_end"
            assert closed == [code, reason]


# --- another journal, or a hole in it


@pytest.mark.parametrize(
    ("query", "reason"),
    [({"epoch": "another"}, "epoch"), ({"epoch": "another", "offset": 2}, "epoch"), ({"offset": 4}, "ahead")],
    ids=repr,
)
async def test_a_place_that_is_not_in_this_journal_begins_anew(room, query, reason):
    room.write_many(3)
    async with room.join(**query) as ws:
        events = await take(ws, 5)
    assert kinds(events)[:2] == ["connected", "replay_reset"]
    assert events[1]["data"] == {"reason": reason, "epoch": room.journal.epoch}
    assert "offset" not in events[1]
    assert offsets(events) == [1, 2, 3]


@pytest.mark.parametrize("query", [{"offset": 3}, {"epoch": ""}, {"offset": 0}], ids=repr)
async def test_a_place_in_this_journal_is_not_reset(room, query):
    room.write_many(3)
    async with room.join(**query) as ws:
        await wait_all_tasks_blocked()
        room.write_many(1)
        events = await events_until(ws, lambda event: event.get("offset") == 4)
    assert "replay_reset" not in kinds(events)


async def test_a_reset_asks_for_the_epoch_first(room):
    assert Place(99, "another").reset_reason(room.journal) == "epoch"
    assert Place(99, room.journal.epoch).reset_reason(room.journal) == "ahead"
    assert Place(0, room.journal.epoch).reset_reason(room.journal) is None


async def test_pruned_events_are_told_as_a_gap(tmp_path):
    with open_room(tmp_path, journal_limit=4096) as room, trio.fail_after(5):
        room.write_many(60, "x" * 100)
        first, last = room.journal.first, room.journal.offset
        assert first > 10
        for start in (0, 5, first - 2):
            async with room.join(offset=start) as ws:
                events = await events_until(ws, lambda event: event.get("offset") == last)
            assert kinds(events)[:2] == ["connected", "replay_gap"]
            assert events[1]["data"] == {"from": start + 1, "to": first - 1}
            assert offsets(events) == list(range(first, last + 1))
        for start in (first - 1, first):
            async with room.join(offset=start) as ws:
                events = await events_until(ws, lambda event: event.get("offset") == last)
            assert "replay_gap" not in kinds(events)
            assert offsets(events) == list(range(start + 1, last + 1))


async def test_events_pruned_while_a_client_lags_are_told_as_a_gap(tmp_path, autojump_clock):
    with open_room(tmp_path, journal_limit=4096) as room, trio.fail_after(5):
        async with room.join(lockstep=True) as ws:
            await next_event(ws)
            room.write_many(MOST_FRAMES + 200, "x" * 50)
            last = room.journal.offset
            events = await events_until(ws, lambda event: event.get("offset") == last)
    covered = []
    for event in events:
        if event["event"] == "replay_gap":
            covered += range(event["data"]["from"], event["data"]["to"] + 1)
        elif "offset" in event:
            covered.append(event["offset"])
    assert "replay_gap" in kinds(events)
    assert covered == list(range(1, last + 1))


# --- text that is streaming


def assembled(events):
    """The text that deltas add up to; a delta must stand where the text so far ends, or begin anew."""
    text = ""
    for event in events:
        if event["event"] == "claude_text_delta":
            data = event["data"]
            assert data["position"] in {0, len(text)}, (data, len(text))
            text = text[: data["position"]] + data["text"]
    return text


async def test_who_joins_in_the_middle_of_a_block_gets_one_delta_with_everything_so_far(room):
    deltas = Deltas(room.journal, room.present, merged=False)
    room.write_many(2)
    deltas.open(1, 0, "text")
    for word in ("So ", "far ", "so 😀 ", "good"):
        deltas.add(word)
    async with room.join() as ws:
        events = await take(ws, 4)
        assert kinds(events) == ["connected", "agent_error", "agent_error", "claude_text_delta"]
        assert events[3]["data"] == {"turn": 1, "block": 0, "position": 0, "text": "So far so 😀 good"}
        await wait_all_tasks_blocked()
        for word in (", and", " on."):
            deltas.add(word)
        after = await take(ws, 2)
        assert [event["data"]["position"] for event in after] == [16, 21]
        assert assembled(events + after) == "So far so 😀 good, and on."


@pytest.mark.parametrize("together", [1, 3])
async def test_deltas_add_up_for_whoever_joins_at_any_moment(room, together, autojump_clock):
    deltas = Deltas(room.journal, room.present, merged=True)
    words = [f"word{number} " for number in range(30)]
    seen = {}

    async def client(number):
        async with room.join() as ws:
            seen[number] = await events_until(ws, lambda event: event["event"] == "claude_text")

    async with trio.open_nursery() as clients:
        deltas.open(1, 0, "text")
        for number, word in enumerate(words):
            clients.start_soon(client, number)
            await trio.sleep(0.013)
            deltas.add(word)
            if number % together == 0:
                deltas.send()
        await trio.sleep(0.2)
        block = deltas.close()
        room.journal.append("claude_text", turn=1, block=0, text="".join(block.parts))
    assert len(seen) == 30
    for events in seen.values():
        assert assembled(events) == "".join(words) == events[-1]["data"]["text"]


async def test_who_joins_after_a_block_gets_no_delta_of_it(room):
    deltas = Deltas(room.journal, room.present, merged=False)
    deltas.open(1, 0, "text")
    deltas.add("gone")
    deltas.close()
    room.write_many(1)
    room.journal.end()
    async with room.join() as ws:
        assert kinds((await rest_of(ws))[0]) == ["connected", "agent_error"]


async def test_a_client_that_lags_skips_deltas_and_no_journaled_event(room, autojump_clock):
    deltas = Deltas(room.journal, room.present, merged=False)
    async with room.join(lockstep=True) as slow, room.join() as fast:
        await next_event(slow)
        await next_event(fast)
        deltas.open(1, 0, "text")
        for number in range(2 * MOST_FRAMES):
            deltas.add(f"{number} ")
            if number % 100 == 0:
                room.write_many(1, "x" * 2000)
        last = room.journal.offset
        await trio.sleep(1)  # the slow one has its reader and its sender blocked by now
        deltas.add("end")
        room.write_many(1)
        lagging = await events_until(slow, lambda event: event.get("offset") == last + 1)
        assert kinds(lagging).count("claude_text_delta") < MOST_FRAMES
        whole = (await events_until(slow, lambda event: event["event"] == "claude_text_delta"))[-1]["data"]
        prompt = await events_until(fast, lambda event: event.get("offset") == last + 1)
    assert offsets(lagging) == offsets(prompt) == list(range(1, last + 2))
    assert (whole["position"], whole["text"]) == (0, assembled(prompt))
    assert whole["text"].endswith("end")


# --- others


async def test_clients_are_told_who_comes_and_goes(room):
    async with room.join() as one:
        await next_event(one)
        await wait_all_tasks_blocked()
        async with room.join(room.tokens.watch) as two:
            assert (await next_event(two))["data"]["connected_clients"] == 2
            joined = await next_event(one)
        left = await next_event(one)
    assert (joined["event"], joined["data"]) == (
        "client_joined",
        {"client_id": 2, "role": "watch", "connected_clients": 2},
    )
    assert (left["event"], left["data"]) == ("client_left", {"client_id": 2, "role": "watch", "connected_clients": 1})
    assert "offset" not in joined | left


async def test_a_client_that_says_goodbye_is_gone_at_once(room):
    async with room.join() as ws:
        await next_event(ws)
        await ws.aclose(1000)
        await room.hub.drain()
        assert len(room.hub) == 0


async def test_too_many_clients_are_told_not_to_come_back(tmp_path):
    with open_room(tmp_path, max_clients=2) as room, trio.fail_after(5):
        async with room.join() as one, room.join() as two:
            await next_event(one)
            await next_event(two)
            async with room.join() as three:
                assert await rest_of(three) == ([], 4503, "too many clients")
            assert len(room.hub) == 2
            assert await alive(one)
            await two.aclose()
            await events_until(one, lambda event: event["event"] == "client_left")
            async with room.join() as four:
                assert (await next_event(four))["event"] == "connected"


async def test_a_client_is_unaffected_while_others_stall(room, autojump_clock):
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            await stall(room, nursery)
        async with room.join() as ws:
            events, begun = [], trio.current_time()
            for _ in range(50):
                room.write_many(10, "x" * 500)
                events += await events_until(ws, lambda event: event.get("offset") == room.journal.offset)
            assert trio.current_time() == begun  # nobody waited for anybody
            assert offsets(events) == list(range(1, 501))
            assert len(room.hub) == 6
            left = await events_until(ws, lambda event: event.get("data", {}).get("connected_clients") == 1)
            assert trio.current_time() - begun == room.config.send_deadline
            assert kinds(left).count("client_left") == 5
        nursery.cancel_scope.cancel()


async def stall(room, nursery):
    """A client that reads its handshake and nothing else."""
    theirs, ours = lockstep_stream_pair()
    nursery.start_soon(room.serve, ours)
    nursery.start_soon(theirs.send_all, handshake(room.path()))
    got = b""
    while b"\r\n\r\n" not in got:
        got += await theirs.receive_some(1)


# --- what a client sends


VALID = [
    ({"type": "prompt", "message": "hi"}, {"type": "prompt", "accepted": "queued", "message_id": None, "position": 1}),
    (
        {"type": "prompt", "message": "hi", "message_id": "m"},
        {"type": "prompt", "accepted": "queued", "message_id": "m", "position": 1},
    ),
    ({"type": "interrupt"}, {"type": "interrupt"}),
    ({"type": "approve", "tool_use_id": "t"}, {"type": "approve", "tool_use_id": "t"}),
    ({"type": "deny", "tool_use_id": "t", "reason": "r"}, {"type": "deny", "tool_use_id": "t"}),
    ({"type": "stop"}, {"type": "stop"}),
]


@pytest.mark.parametrize(("frame", "ack"), VALID, ids=repr)
async def test_a_command_is_acknowledged_to_its_sender_alone(room, frame, ack):
    async with room.join() as sender, room.join() as other:
        await next_event(other)
        await next_event(sender)
        await sender.send_message(json.dumps(frame))
        answer = (await events_until(sender, lambda event: event["event"] in {"ack", "error"}))[-1]
        assert (answer["event"], answer["data"]) == ("ack", ack)
        assert "offset" not in answer
        assert len(room.commands.asked) == 1
        await other.send_message('{"type":"ping"}')
        told = await events_until(other, lambda event: event["event"] == "pong")
        assert set(kinds(told)) <= {"client_joined", "pong"}


async def test_an_approval_carries_the_id_of_its_client(room):
    async with room.join() as one, room.join() as two:
        await next_event(one)
        await two.send_message('{"type":"approve","tool_use_id":"t"}')
        await events_until(two, lambda event: event["event"] == "ack")
    assert room.commands.asked == [("resolve", "t", True, 2, None)]


async def test_what_the_session_refuses_is_an_error_with_its_code(room):
    async with room.join() as ws:
        await ws.send_message('{"type":"prompt","message":"refuse me"}')
        answer = (await events_until(ws, lambda event: event["event"] == "error"))[-1]
        assert answer["data"] == {"code": "too_many_prompts", "detail": "no more"}
        assert await alive(ws)


async def test_every_invalid_frame_gets_an_error_and_the_connection_stays(room):
    frames = [frame for frame in INVALID if frame != "\ud800"]
    frames += ["x" * 200_000, b"\x00\xff" * 1000, json.dumps({"type": "prompt", "message": "x" * 200_000})[:-1]]
    async with room.join() as ws:
        await next_event(ws)
        for frame in frames:
            await ws.send_message(frame)
            answer = await next_event(ws)
            assert (answer["event"], answer["data"]["code"]) == ("error", "invalid_request"), frame[:80]
            assert "offset" not in answer
        assert await alive(ws)
    assert room.commands.asked == []


@pytest.mark.parametrize("frame", [frame for frame, _ in VALID], ids=repr)
async def test_a_watcher_may_not_act(room, frame):
    async with room.join(room.tokens.watch) as ws:
        await next_event(ws)
        await ws.send_message(json.dumps(frame))
        answer = await next_event(ws)
        assert (answer["event"], answer["data"]["code"]) == ("error", "forbidden")
        assert await alive(ws)
    assert room.commands.asked == []


async def test_an_oversize_frame_closes_with_1009(tmp_path):
    with open_room(tmp_path, max_frame=1000) as room, trio.fail_after(5):
        async with room.join() as ws, room.join() as other:
            await next_event(ws)
            await ws.send_message("x" * 1000)
            assert (await next_event(ws))["event"] in {"error", "client_joined"}
            await ws.send_message("x" * 1001)
            assert (await rest_of(ws))[1] == 1009
            assert await alive(other)


@pytest.mark.parametrize(
    "data",
    [
        frame(1, b"{}", masked=False),
        frame(3, b"x"),
        frame(1, b"x", reserved=4),
        frame(9, b"x", fin=False),
        frame(9, b"x" * 126),
        frame(0, b"x"),
        frame(1, b"x", fin=False) + frame(1, b"x"),
        frame(1, b"\xff\xfe"),
    ],
    ids=repr,
)
async def test_a_client_that_breaks_the_protocol_is_closed_with_4502(room, data):
    async with room.join() as other, room.connection() as stream:
        client = RawClient(stream)
        await client.open(room.path())
        await client.until(wsproto.events.TextMessage)
        await stream.send_all(data)
        assert (await client.until(wsproto.events.CloseConnection)).code == 4502
        await stream.send_eof()
        while await stream.receive_some():
            pass
        assert await alive(other)


async def test_a_frame_in_fragments_is_one_frame(room):
    async with room.connection() as stream:
        client = RawClient(stream)
        await client.open(room.path())
        await client.until(wsproto.events.TextMessage)
        for number, part in enumerate(pieces := ['{"ty', 'pe":"p', 'ing"}']):
            await client.send(wsproto.events.TextMessage(data=part, message_finished=number == len(pieces) - 1))
        answer = await client.until(wsproto.events.TextMessage)
        assert msgspec.json.decode(answer.data)["event"] == "pong"


async def test_many_commands_while_events_stream_never_mix_bytes(room):
    """Every message decodes, and each kind of them is in order."""
    async with room.join() as ws:
        await next_event(ws)
        events = []
        async with trio.open_nursery() as nursery:

            async def talk():
                for number in range(100):
                    await ws.send_message(json.dumps({"type": "prompt", "message": "x", "message_id": str(number)}))

            async def write():
                for _ in range(100):
                    room.write_many(3, "y" * 300)
                    await trio.lowlevel.checkpoint()

            nursery.start_soon(talk)
            nursery.start_soon(write)
            while len(events) < 400:
                events.append(await next_event(ws))
    assert offsets(events) == list(range(1, 301))
    acks = [event["data"]["message_id"] for event in events if event["event"] == "ack"]
    assert acks == [str(number) for number in range(100)]


# --- whether it is still there


async def test_a_client_that_answers_pings_stays(tmp_path, autojump_clock):
    with open_room(tmp_path) as room:
        async with room.join() as ws:
            await next_event(ws)
            await trio.sleep(40 * room.config.ping_interval)
            assert await alive(ws)


async def test_clients_that_came_at_about_the_same_time_are_asked_together(room, autojump_clock):
    asked = []

    async def one(after: float) -> None:
        await trio.sleep(after)
        async with room.connection() as stream:
            client = RawClient(stream)
            await client.open(room.path())
            await client.until(wsproto.events.Ping)
            asked.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        for number in range(1, 6):
            nursery.start_soon(one, number * room.config.ping_interval / 1000)
    assert len(asked) == 5
    assert len(set(asked)) == 1
    assert room.config.ping_interval < asked[0] <= room.config.ping_interval * 1.03


async def test_a_client_that_does_not_answer_a_ping_is_closed_with_4001(room, autojump_clock):
    begun = trio.current_time()
    async with room.connection() as stream:
        client = RawClient(stream)
        await client.open(room.path())
        await client.until(wsproto.events.Ping)
        assert trio.current_time() - begun == room.config.ping_interval
        close = await client.until(wsproto.events.CloseConnection)
        assert (close.code, close.reason) == (4001, "no answer to a ping")
        assert trio.current_time() - begun == room.config.ping_interval + room.config.pong_deadline
        while await stream.receive_some():  # it is not waited for either
            pass
        assert trio.current_time() - begun <= 40 + room.config.drain_grace
        await room.hub.drain()


@pytest.mark.parametrize(
    "sign",
    [
        wsproto.events.Pong(),
        wsproto.events.Pong(payload=b"another"),
        wsproto.events.Ping(),
        wsproto.events.TextMessage(data="{", message_finished=False),
    ],
    ids=lambda event: type(event).__name__,
)
async def test_whatever_a_client_sends_shows_that_it_is_there_until_it_is_asked_again(tmp_path, autojump_clock, sign):
    with open_room(tmp_path) as room, trio.fail_after(120):
        async with room.connection() as stream:
            client, config = RawClient(stream), room.config
            await client.open(room.path())
            await client.until(wsproto.events.Ping)
            await trio.sleep(config.pong_deadline / 2)
            begun = trio.current_time()
            await client.send(sign)
            await client.until(wsproto.events.Ping)
            assert trio.current_time() - begun == config.ping_interval
            assert (await client.until(wsproto.events.CloseConnection)).code == 4001
            assert trio.current_time() - begun == config.ping_interval + config.pong_deadline


async def test_a_clients_ping_is_answered_by_a_pong(room):
    async with room.connection() as stream:
        client = RawClient(stream)
        await client.open(room.path())
        await client.until(wsproto.events.TextMessage)
        await client.send(wsproto.events.Ping(payload=b"there?"))
        assert (await client.until(wsproto.events.Pong)).payload == b"there?"


async def test_a_client_that_does_not_answer_the_close_is_dropped_after_the_grace(room, autojump_clock):
    async with room.connection() as stream:
        client = RawClient(stream)
        await client.open(room.path())
        await client.until(wsproto.events.TextMessage)
        begun = trio.current_time()
        room.journal.end()
        assert (await client.until(wsproto.events.CloseConnection)).code == 1000
        assert await stream.receive_some() == b""
        assert trio.current_time() - begun == room.config.drain_grace
        await room.hub.drain()


async def test_a_connection_that_breaks_counts_out_its_client(room):
    async with room.connection() as stream:
        client = RawClient(stream)
        await client.open(room.path())
        await client.until(wsproto.events.TextMessage)
        assert len(room.hub) == 1
        await trio.aclose_forcefully(stream)
        await room.hub.drain()


async def test_a_client_that_half_closes_is_gone(room):
    async with room.connection() as stream:
        client = RawClient(stream)
        await client.open(room.path())
        await client.until(wsproto.events.TextMessage)
        await stream.send_eof()
        await room.hub.drain()


async def test_nothing_follows_the_close(room):
    """Events that come while the client closes are not written behind the close."""
    async with room.connection() as stream:
        client = RawClient(stream)
        await client.open(room.path())
        await client.until(wsproto.events.TextMessage)
        await client.send(wsproto.events.CloseConnection(code=1000))
        room.write_many(5)
        got = b""
        while data := await stream.receive_some():
            got += data
            room.write_many(1)
        assert got.endswith(b"\x88\x02\x03\xe8")


async def test_cancelling_ends_every_client(room):
    with trio.CancelScope() as scope:
        async with room.join() as one, room.join() as two:
            await next_event(one)
            await next_event(two)
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert len(room.hub) == 0


async def test_nothing_is_kept_for_a_client_that_was_cancelled_at_any_moment(room):
    async def client() -> None:
        async with room.join() as ws:
            while True:
                await next_event(ws)

    reached = False
    for moment in range(0, 120, 3):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client)
            for step in range(moment):
                await trio.lowlevel.checkpoint()
                if len(room.hub) and step % 10 == 0:  # so that it catches up meanwhile, mostly
                    room.journal.publish("tool_output", tool_use_id="t", position=0, text="x")
                    reached = reached or len(room.journal.ring) > 0
            nursery.cancel_scope.cancel()
        room.write_many(1)
        assert (len(room.hub), len(room.journal.ring)) == (0, 0)
    assert reached


async def test_a_message_behind_the_close_is_refused(room):
    async with room.join() as ws:
        await next_event(ws)
        await ws.aclose()
        with pytest.raises(ConnectionClosed):
            await ws.send_message('{"type":"stop"}')
    assert room.commands.asked == []
