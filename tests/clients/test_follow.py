import pytest
import trio
from trio_websocket import HandshakeError

from daemon.clients.follow import follow, open_client
from tests.clients.room import open_listening_room
from tests.support import descriptors, kinds


@pytest.fixture
async def listening(tmp_path):
    with trio.fail_after(10):
        async with open_listening_room(tmp_path) as (room, url):
            yield room, url + room.path()


async def test_follow_gives_every_event_and_the_close_code(listening):
    room, url = listening
    room.write_many(3)
    room.journal.end()
    events = []
    assert await follow(url, events.append) == 1000
    assert [event.get("offset") for event in events] == [None, 1, 2, 3]
    assert kinds(events)[0] == "connected"


async def test_follow_goes_on_behind_an_offset(listening):
    room, url = listening
    room.write_many(3)
    room.journal.end()
    events = []
    await follow(url, events.append, offset=2)
    assert [event["offset"] for event in events[1:]] == [3]


async def test_follow_gives_the_code_of_a_shutdown(listening):
    room, url = listening
    room.hub.close_code = 1001
    room.journal.end()
    assert await follow(url, lambda _: None) == 1001


async def test_follow_ends_when_it_is_told_enough(listening):
    room, url = listening
    room.write_many(3)
    events = []
    assert await follow(url, lambda event: events.append(event) or len(events) == 2) == 1000
    assert len(events) == 2


async def test_follow_leaves_no_descriptor_whoever_closes_first(listening):
    room, url = listening
    room.write_many(1)
    before = descriptors()
    await follow(url, lambda _: True)
    with trio.move_on_after(0.05):
        await follow(url, lambda _: None)
    room.journal.end()
    await follow(url, lambda _: None)
    await room.hub.drain()
    while descriptors() != before:  # the server's own ends
        await trio.sleep(0.001)


async def test_a_refused_handshake_is_a_handshake_error_and_leaves_no_descriptor(listening):
    room, url = listening
    before = descriptors()
    with pytest.raises(HandshakeError):
        await follow(url.replace("token=", "token=x"), lambda _: None)
    while descriptors() != before:
        await trio.sleep(0.001)
    assert len(room.hub) == 0


async def test_nobody_listening_is_an_os_error():
    with trio.socket.socket() as taken:
        await taken.bind(("127.0.0.1", 0))  # bound, and nobody listens
        with pytest.raises(OSError, match="connect"):
            async with open_client(f"ws://127.0.0.1:{taken.getsockname()[1]}/ws"):
                pass


async def test_a_server_that_closes_without_an_answer_is_a_handshake_error(autojump_clock, monkeypatch):
    theirs, ours = trio.testing.memory_stream_pair()

    async def connect(*_):
        return ours

    monkeypatch.setattr(trio, "open_tcp_stream", connect)  # the edge of the network
    await theirs.aclose()
    with trio.fail_after(60), pytest.raises(HandshakeError):
        async with open_client("ws://room/ws"):
            pass
