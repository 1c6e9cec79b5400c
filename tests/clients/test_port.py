from contextlib import suppress

import msgspec
import pytest
import trio
from trio_websocket import HandshakeError

from daemon.clients.auth import Tokens
from daemon.clients.follow import open_client
from daemon.clients.port import open_port
from daemon.services import open_services
from daemon.serving import open_listeners
from tests.clients.room import Answers, handshake, head, open_listening_room, open_room
from tests.support import descriptors, next_event, steps_of


@pytest.fixture
async def room(tmp_path):
    with open_room(tmp_path) as opened:
        yield opened


async def upgrade(room, target, **headers):
    """The answer to a handshake that must not succeed."""
    with trio.fail_after(5):
        async with room.connection() as stream:
            await stream.send_all(handshake(target, **headers))
            return await Answers(stream).next()


# --- /ws


@pytest.mark.parametrize("role", ["control", "watch"])
async def test_each_token_opens_the_websocket_in_its_role(room, role):
    with trio.fail_after(5):
        async with room.join(getattr(room.tokens, role)) as ws:
            connected = await next_event(ws)
    assert (connected["event"], connected["data"]["role"]) == ("connected", role)


@pytest.mark.parametrize("query", ["", "?", "?token", "?token=", "?token=wrong", "?token=%ff", "?offset=1", "?Token=x"])
async def test_a_missing_or_wrong_token_is_401_before_the_handshake(room, query):
    answer = await upgrade(room, "/ws" + query)
    assert answer.status == 401
    assert len(room.hub) == 0
    assert not room.journal.ring.sequence  # nobody was told of a client


async def test_another_sessions_tokens_are_401(room):
    other = Tokens()
    for token in (other.control, other.watch, room.tokens.preview):
        assert (await upgrade(room, f"/ws?token={token}")).status == 401


async def test_nothing_ambient_opens_the_websocket(room):
    cookies = f"footlight_s1={room.tokens.preview}; token={room.tokens.control}"
    assert (await upgrade(room, "/ws", Cookie=cookies)).status == 401


async def test_a_bearer_opens_the_websocket_too(room):
    with trio.fail_after(5):
        async with room.connection() as stream:
            await stream.send_all(handshake("/ws", Authorization=f"Bearer {room.tokens.watch}"))
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 101 ")
    assert (await upgrade(room, "/ws", Authorization="Bearer wrong")).status == 401


@pytest.mark.parametrize("origin", ["http://room", "https://evil.example", "null", "", "chrome-extension://x"])
async def test_any_origin_may_connect_with_a_token(room, origin):
    with trio.fail_after(5):
        async with room.connection() as stream:
            await stream.send_all(handshake(room.path(), Origin=origin))
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize(
    "offset",
    ["-1", "x", "1.5", "1e3", "9" * 5000, "9" * 23, str(1 << 53), "%2B1", "1_0", "%D9%A1", "%201", "%00", "0x10"],
)
async def test_an_offset_that_is_none_is_400(room, offset):
    assert (await upgrade(room, f"/ws?token={room.tokens.control}&offset={offset}")).status == 400


@pytest.mark.parametrize("offset", ["", "0", "1", "01", str((1 << 53) - 1)])
async def test_an_offset_that_is_one_is_taken(room, offset):
    room.write_many(1)
    with trio.fail_after(5):
        async with room.join(offset=offset) as ws:
            assert (await next_event(ws))["event"] == "connected"


@pytest.mark.parametrize(
    "data",
    [
        head("/ws"),
        head("/ws?token=x"),
        head("/ws", "POST"),
        head("/ws", Connection="Upgrade", Upgrade="h2c"),
        head("/ws", Upgrade="websocket"),
    ],
    ids=repr,
)
async def test_a_plain_request_to_the_websocket_is_426(room, data):
    with trio.fail_after(5):
        async with room.connection() as stream:
            await stream.send_all(data)
            answer = await Answers(stream).next()
    assert (answer.status, answer.headers["upgrade"]) == (426, "websocket")


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (b"Version: 13", b"Version: 12"),
        (b"Version: 13", b"Version: "),
        (b"Sec-WebSocket-Version", b"X"),
        (b"Sec-WebSocket-Key", b"X"),
    ],
    ids=repr,
)
async def test_a_wrong_handshake_is_not_waited_for(room, right, wrong, autojump_clock):
    async with room.connection() as stream:
        begun = trio.current_time()
        await stream.send_all(handshake(room.path()).replace(right, wrong))
        got = b""
        while data := await stream.receive_some():
            got += data
        assert not got.startswith(b"HTTP/1.1 101 ")
        assert trio.current_time() - begun <= 1
    assert len(room.hub) == 0


async def test_a_peer_that_leaves_in_its_handshake_is_not_waited_for(room):
    theirs, ours = trio.testing.memory_stream_pair()
    await theirs.send_all(handshake(room.path(), Sec_WebSocket_Key="").replace(b"Sec-WebSocket-Key", b"X"))
    await theirs.send_eof()
    with trio.fail_after(5):
        await room.serve(ours)  # returns


async def test_a_handshake_that_never_ends_is_dropped_at_the_deadline(room, autojump_clock):
    async with room.connection() as stream:
        begun = trio.current_time()
        await stream.send_all(handshake(room.path())[:-2])
        assert await stream.receive_some() == b""
        assert trio.current_time() - begun == room.config.head_deadline


async def test_bytes_behind_the_handshake_are_no_harm(room):
    """RFC 6455, 4.1: a client waits for the answer first. One that does not loses that frame and nothing else."""
    ping = b'{"type":"ping"}'
    frame = bytes([0x81, 0x80 | len(ping)]) + bytes(4) + ping
    with trio.fail_after(5):
        async with room.connection() as stream:
            await stream.send_all(handshake(room.path()) + frame)
            got = b""
            while b'"connected"' not in got:
                got += await stream.receive_some()
            await stream.send_all(frame)
            while b'"pong"' not in got:
                got += await stream.receive_some()


async def test_a_handshake_in_single_bytes_succeeds(room):
    with trio.fail_after(5):
        async with room.connection() as stream:
            for byte in handshake(room.path()):
                await stream.send_all(bytes([byte]))
                await trio.lowlevel.checkpoint()
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 101 ")


# --- /health


@pytest.mark.parametrize("token", [None, "", "wrong"])
async def test_health_tells_a_stranger_nothing_else(room, token):
    answer = await room.get("/health" if token is None else f"/health?token={token}")
    assert (answer.status, answer.body) == (200, b'{"status":"healthy"}')
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["cache-control"] == "no-store"


async def test_health_with_a_token_tells_how_the_session_is(room, autojump_clock):
    room.write_many(3)
    room.commands.queued_prompts = 2
    await trio.sleep(1.5)
    expected = {
        "status": "healthy",
        "session_id": "s1",
        "connected_clients": 0,
        "queued_events": 3,
        "queued_prompts": 2,
        "offset": 3,
        "epoch": room.journal.epoch,
    }
    for answer in (
        await room.get(f"/health?token={room.tokens.watch}"),
        await room.get("/health", Authorization=f"Bearer {room.tokens.control}"),
    ):
        health = msgspec.json.decode(answer.body)
        assert health.pop("uptime_seconds") == pytest.approx(1.5)
        assert health == expected


async def test_queued_events_are_those_that_no_client_has_been_sent(room):
    async def queued():
        answer = await room.get(f"/health?token={room.tokens.watch}")
        return msgspec.json.decode(answer.body)["queued_events"]

    with trio.fail_after(5):
        room.write_many(3)
        assert await queued() == 3
        async with room.join() as ws:
            for _ in range(4):
                await next_event(ws)
            await trio.testing.wait_all_tasks_blocked()
            assert await queued() == 0
            room.write_many(2)
            for _ in range(2):
                await next_event(ws)
            await trio.testing.wait_all_tasks_blocked()
            assert await queued() == 0
        room.write_many(2)
        assert await queued() == 2
        async with room.join(offset=7) as ws:  # a client that has seen them elsewhere
            await next_event(ws)


async def test_health_counts_the_connected_clients(room):
    with trio.fail_after(5):
        async with room.join() as one, room.join(room.tokens.watch) as two:
            await next_event(one)
            await next_event(two)
            answer = await room.get(f"/health?token={room.tokens.watch}")
    assert msgspec.json.decode(answer.body)["connected_clients"] == 2


async def test_health_answers_a_preflight(room):
    answer = await room.get(
        "/health", "OPTIONS", Origin="https://x.example", Access_Control_Request_Headers="authorization, x-y"
    )
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["access-control-allow-methods"] == "GET"
    assert answer.headers["access-control-allow-headers"] == "authorization, x-y"


async def test_a_preflight_that_asks_for_no_header_is_answered(room):
    assert (await room.get("/health", "OPTIONS")).headers["access-control-allow-headers"] == "*"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_health_is_read_only(room, method):
    answer = await room.get("/health", method)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


@pytest.mark.parametrize("target", ["/health/", "/HEALTH", "/healthx", "/ws/", "/wsx", "/%77s/"])
async def test_other_paths_are_the_previews(room, target):
    assert (await room.get(target)).status == 401


# --- the port itself


async def test_the_port_answers_until_the_services_end(tmp_path):
    with trio.fail_after(10):
        async with open_listening_room(tmp_path) as (room, url):
            async with open_client(url + room.path()) as ws:
                assert (await next_event(ws))["event"] == "connected"
            with pytest.raises(HandshakeError):
                async with open_client(url + "/ws?token=wrong"):
                    pass
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream("127.0.0.1", room.port.number)


async def test_the_port_is_on_loopback_only(tmp_path):
    async with open_listening_room(tmp_path) as (room, _):
        with pytest.raises(OSError, match="in use"):
            await open_listeners("127.0.0.1", room.port.number, 1)
        for listener in await open_listeners("127.0.0.2", room.port.number, 1):
            await listener.aclose()


async def test_connections_over_the_cap_are_refused(tmp_path):
    with trio.fail_after(10):
        async with open_listening_room(tmp_path, max_connections=1) as (room, _):
            async with await trio.open_tcp_stream("127.0.0.1", room.port.number) as one:
                await one.send_all(head("/health"))
                assert (await Answers(one).next()).status == 200
                async with await trio.open_tcp_stream("127.0.0.1", room.port.number) as two:
                    with suppress(trio.BrokenResourceError):
                        assert await two.receive_some() == b""


async def test_a_peer_that_still_sends_gets_its_answer_and_a_clean_end(tmp_path):
    """A socket that is closed over unread bytes is reset, and what it had sent may be lost."""
    with trio.fail_after(10):
        async with open_listening_room(tmp_path) as (room, _):
            async with await trio.open_tcp_stream("127.0.0.1", room.port.number) as stream:
                await stream.send_all(head("/", "POST", Content_Length="200000") + bytes(100_000))
                assert (await Answers(stream).next()).status == 405
                await stream.send_all(bytes(100_000))
                assert await stream.receive_some() == b""


async def test_opening_the_port_leaves_nothing_when_cancelled_at_any_step(tmp_path):
    with open_room(tmp_path) as room, trio.fail_after(10):

        async def body():
            async with (
                open_services() as services,
                open_port(services, room.audience, room.tokens, room.workspace) as port,
                await trio.open_tcp_stream("127.0.0.1", port.number) as stream,
            ):
                await stream.send_all(head("/health"))
                await Answers(stream).next()

        before = descriptors()
        steps = await steps_of(body)
        for at in range(1, steps + 1):
            await steps_of(body, at)
            assert descriptors() == before, f"cancelled at step {at} of {steps}"
