"""Clients over real sockets: stalls, eviction, and a whole daemon's session."""

import socket
from contextlib import suppress
from functools import partial

import pytest
import trio
import wsproto.events
from trio_websocket import ConnectionClosed

from daemon.clients.follow import open_client
from tests.clients.room import RawClient, handshake, open_listening_room, rest_of
from tests.support import all_events, api, events_until, journaled, kinds, next_event

MB = 1 << 20


async def connect_tiny(port):
    """A connection that takes a few KB and no more until it reads."""
    sock = trio.socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    await sock.connect(("127.0.0.1", port))
    return trio.SocketStream(sock)


async def until(condition):
    while not condition():
        await trio.sleep(0.002)


async def test_a_client_that_takes_nothing_is_evicted_at_once_and_alone(tmp_path):
    with trio.fail_after(20):
        async with open_listening_room(tmp_path, send_deadline=0.2) as (room, url):
            async with open_client(url + room.path()) as good, await connect_tiny(room.port.number) as stalled:
                await next_event(good)
                await stalled.send_all(handshake(room.path()))
                await events_until(good, lambda event: event["event"] == "client_joined")
                begun = trio.current_time()
                room.write_many(400, "x" * 20_000)  # 8 MB: more than the buffers between them hold
                events = await events_until(good, lambda event: event.get("offset") == 400)
                assert [event["offset"] for event in journaled(events)] == list(range(1, 401))
                await until(lambda: len(room.hub) == 1)
                took = trio.current_time() - begun
            assert 0.2 <= took < 0.2 + 3  # no closing handshake, no 60 s of a library's patience


async def test_the_last_events_reach_a_client_that_reads_late_and_still_talks(tmp_path):
    """Closing a socket over bytes that were not read resets it: the peer would lose what it had not yet got."""
    with trio.fail_after(20):
        async with open_listening_room(tmp_path) as (room, _):
            async with await connect_tiny(room.port.number) as stream:
                client = RawClient(stream)
                await client.open(room.path())
                await client.until(wsproto.events.TextMessage)
                room.write_many(20, "x" * 5000)
                room.journal.append("session_end", reason="stopped", turn_count=0, detail=None, processes_killed=0)
                room.journal.end()
                await client.send(wsproto.events.TextMessage(data='{"type":"ping"}' + " " * 1000))
                texts, close = [], None
                while close is None:
                    event = await client.until((wsproto.events.TextMessage, wsproto.events.CloseConnection))
                    if isinstance(event, wsproto.events.CloseConnection):
                        close = event.code
                    else:
                        texts.append(event.data)
                assert '"session_end"' in "".join(texts)[-400:]
                assert close == 1000


async def test_a_huge_frame_closes_with_1009_and_the_others_go_on(tmp_path):
    with trio.fail_after(20):
        async with open_listening_room(tmp_path) as (room, url):
            async with open_client(url + room.path()) as other:
                async with open_client(url + room.path()) as ws:
                    await next_event(ws)
                    with suppress(ConnectionClosed):  # while it still sends
                        await ws.send_message("x" * MB)
                    assert (await rest_of(ws))[1] in {1009, 1006}
                await other.send_message('{"type":"ping"}')
                await events_until(other, lambda event: event["event"] == "pong")


async def test_hundreds_of_clients_come_and_go(tmp_path):
    with trio.fail_after(30):
        async with open_listening_room(tmp_path) as (room, url):
            room.write_many(5)

            async def visit():
                async with open_client(url + room.path()) as ws:
                    await events_until(ws, lambda event: event.get("offset") == 5)

            async with trio.open_nursery() as nursery:
                for _ in range(150):
                    nursery.start_soon(visit)
            await room.hub.drain()


@pytest.fixture
async def session(daemon):
    """A session of a whole daemon whose first turn is over: its URLs."""
    async with api(daemon.url) as client:
        created = (await client.post("/api/chat", json={"message": "Build a restaurant menu"})).json()
        path = f"/api/sessions/{created['session_id']}"
        view = (await client.get(path, params={"wait": 10})).json()
        async with open_client(view["websocket_url"]) as ws:
            await events_until(ws, lambda event: event["event"] == "ready_for_input")
        yield view, partial(client.delete, path)


async def test_a_real_session_is_resumed_at_every_offset_exactly(session):
    view, stop = session
    found = {}
    async with open_client(view["websocket_url"]) as ws:
        last = (await events_until(ws, lambda event: event["event"] == "ready_for_input"))[-1]["offset"]

    async def resume(offset, url):
        found[offset] = await all_events(url, offset)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            urls = view["websocket_url"], view["watch_url"]
            for offset in range(last + 1):
                nursery.start_soon(resume, offset, urls[offset % 2])
            async with open_client(view["websocket_url"]) as ws:
                await events_until(ws, lambda event: event.get("data", {}).get("connected_clients", 0) > last)
            await stop()
    total = last + 1  # and session_end
    whole = journaled(found[0][0])
    assert kinds(whole)[-1] == "session_end"
    for offset, (events, code) in found.items():
        assert code == 1000
        assert kinds(events)[0] == "connected"
        assert [event["offset"] for event in journaled(events)] == list(range(offset + 1, total + 1))
        assert journaled(events) == whole[offset:]


async def test_a_command_of_a_real_session_is_refused_to_watchers(session):
    view, stop = session
    async with open_client(view["watch_url"]) as ws:
        await ws.send_message('{"type":"stop"}')
        answer = (await events_until(ws, lambda event: event["event"] == "error"))[-1]
        assert answer["data"]["code"] == "forbidden"
    async with open_client(view["websocket_url"]) as ws:
        await ws.send_message('{"type":"approve","tool_use_id":"none"}')
        answer = (await events_until(ws, lambda event: event["event"] == "error"))[-1]
        assert answer["data"]["code"] == "no_such_approval"
        await ws.send_message('{"type":"stop"}')
        assert (await rest_of(ws))[1] == 1000
    await stop()
