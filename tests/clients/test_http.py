from contextlib import suppress

import h11
import pytest
import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from daemon.clients import http
from daemon.clients.http import HttpConnection, Request, Response
from daemon.clients.stream import ClientStream
from tests.clients.room import Answers, handshake, head, open_room


def connection(max_head=16384):
    """A connection on our side, and the peer's stream."""
    ours, theirs = memory_stream_pair()
    return HttpConnection(ClientStream(ours, send_deadline=5), max_head=max_head), theirs


async def received(data):
    ours, theirs = connection()
    await theirs.send_all(data)
    with trio.fail_after(2):
        return await ours.receive()


def request(**fields):
    return Request(**{"method": "GET", "path": "/", "raw_path": "/", "query": {}, "headers": {}, "head": b"", **fields})


async def test_a_head_is_read_whatever_pieces_it_comes_in(autojump_clock):
    data = head("/a%20b?x=1&y=&token=t%2B", Cookie="a=b", X_Other="Value")
    whole = await received(data)
    assert (whole.method, whole.path, whole.raw_path) == ("GET", "/a b", "/a%20b")
    assert whole.query == {"x": "1", "y": "", "token": "t+"}
    assert whole.headers == {"host": "room", "cookie": "a=b", "x-other": "Value"}
    ours, theirs = connection()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_send_bytes, theirs, data)
        assert await ours.receive() == whole


async def _send_bytes(stream, data):
    for byte in data:
        await stream.send_all(bytes([byte]))
        await wait_all_tasks_blocked()


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/", "/"),
        ("//", "//"),
        ("//host/x", "//host/x"),
        ("//[", "//["),
        ("//[::1", "//[::1"),
        ("/a//b", "/a//b"),
        ("/a;b=c", "/a;b=c"),
        ("/%2e%2e/x", "/../x"),
        ("/%00", "/\0"),
        ("/%ff", "/\udcff"),
        ("/%", "/%"),
        ("/a?b?c", "/a"),
        ("/a#b", "/a"),
        ("*", "/*"),
        ("http://room/x", "/x"),
        ("http://[/x", "/x"),
        ("https://room", "/"),
        ("http:x", "/http:x"),
    ],
)
async def test_the_path_of_a_target(target, path):
    assert (await received(head(target))).path == path


async def test_all_bytes_read_are_kept_behind_the_head():
    data = handshake("/ws") + b"\x81\x00"
    assert (await received(data)).head == data


@pytest.mark.parametrize("data", [b"", b"\r\n", b"GET / HT", b"GET / HTTP/1.1\r\nHost: room\r\n"])
async def test_a_peer_that_leaves_before_its_head_ends_is_no_request(data):
    ours, theirs = connection()
    await theirs.send_all(data)
    await theirs.aclose()
    with trio.fail_after(2):
        try:
            assert await ours.receive() is None
        except h11.RemoteProtocolError:
            assert data


MALFORMED = [
    b"\x00\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",  # no Host
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
    b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n\r\n",  # TLS
]


@pytest.mark.parametrize("data", MALFORMED, ids=lambda data: repr(data[:40]))
async def test_a_malformed_head_is_answered_and_the_connection_ends(data, tmp_path):
    with open_room(tmp_path) as room, trio.fail_after(5):
        async with room.connection() as stream:
            await stream.send_all(data)
            await stream.send_eof()
            answer = await Answers(stream).next()
            assert answer.status in {400, 501, 505}
            assert answer.headers["connection"] == "close"
            assert await stream.receive_some() == b""


async def test_an_http2_preface_is_refused(tmp_path):
    with open_room(tmp_path) as room, trio.fail_after(5):
        async with room.connection() as stream:
            await stream.send_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9))
            answers = Answers(stream)
            assert [(await answers.next()).status for _ in range(2)] == [405, 400]
            await stream.send_eof()
            assert await stream.receive_some() == b""


async def test_a_head_over_the_limit_is_refused_before_it_ends():
    ours, theirs = connection(max_head=1000)
    await theirs.send_all(b"GET / HTTP/1.1\r\nX: " + b"x" * 1100)
    with pytest.raises(h11.RemoteProtocolError) as raised:
        await ours.receive()
    await ours.refuse(raised.value)
    assert (await Answers(theirs).next()).status == 431


async def test_several_requests_on_one_connection_are_answered_in_order(tmp_path):
    with open_room(tmp_path) as room, trio.fail_after(5):
        async with room.connection() as stream:
            answers = Answers(stream)
            for target, status in [("/health", 200), ("/ws", 426), ("/", 401), ("/health", 200)] * 3:
                await stream.send_all(head(target))
                assert (await answers.next()).status == status


async def test_pipelined_requests_are_answered_in_order(tmp_path):
    with open_room(tmp_path) as room, trio.fail_after(5):
        async with room.connection() as stream:
            targets = [("/health", 200), ("/ws", 426), ("/", 401)] * 5
            await stream.send_all(b"".join(head(target) for target, _ in targets) + head("/health", Connection="close"))
            answers = Answers(stream)
            assert [(await answers.next()).status for _ in targets] == [status for _, status in targets]
            assert (await answers.next()).headers["connection"] == "close"
            await stream.send_eof()
            assert await stream.receive_some() == b""


async def test_a_refused_handshake_leaves_the_connection_for_more_requests(tmp_path):
    with open_room(tmp_path) as room, trio.fail_after(5):
        async with room.connection() as stream:
            answers = Answers(stream)
            await stream.send_all(handshake("/ws") + head("/health"))
            assert [(await answers.next()).status for _ in range(2)] == [401, 200]


async def test_a_websocket_may_follow_requests_on_the_same_connection(tmp_path):
    with open_room(tmp_path) as room, trio.fail_after(5):
        async with room.connection() as stream:
            await stream.send_all(head("/health") + handshake(room.path()))
            got = b""
            while b'"connected"' not in got:
                got += await stream.receive_some()
            assert b"HTTP/1.1 101" in got


async def test_head_gets_the_headers_of_get_without_the_body(tmp_path):
    with open_room(tmp_path) as room, trio.fail_after(5):
        got, headed = await room.get("/health"), await room.get("/health", "HEAD")
    assert headed.status == got.status == 200
    assert headed.body == b""
    assert headed.headers["content-length"] == str(len(got.body))


@pytest.mark.parametrize(
    "data",
    [
        head("/health", "POST", Content_Length="3") + b"abc",
        head("/health", "GET", Content_Length="3") + b"abc",
        head("/health", "GET", Transfer_Encoding="chunked") + b"3\r\nabc\r\n0\r\n\r\n",
        head("/health", "GET", Transfer_Encoding="chunked") + b"zzz\r\n",
        head("/health", "PUT", Content_Length="100000000000"),
        head("/health", "PUT", Content_Length="5", Expect="100-continue"),
        head("/health", Connection="close"),
        b"GET /health HTTP/1.0\r\n\r\n",
    ],
    ids=lambda data: repr(data[:60]),
)
async def test_a_request_with_a_body_is_the_last_of_its_connection(data, tmp_path, autojump_clock):
    with open_room(tmp_path) as room, trio.fail_after(5):
        async with room.connection() as stream:
            await stream.send_all(data)
            answer = await Answers(stream).next()
            assert answer.status in {200, 405}
            assert answer.headers["connection"] == "close"
            assert await stream.receive_some() == b""


async def test_content_length_zero_is_no_body(tmp_path):
    with open_room(tmp_path) as room, trio.fail_after(5):
        async with room.connection() as stream:
            answers = Answers(stream)
            await stream.send_all(head("/health", Content_Length="0") + head("/health"))
            assert [(await answers.next()).status for _ in range(2)] == [200, 200]


async def test_what_a_peer_still_sends_after_the_last_answer_is_not_read_for_ever(tmp_path, autojump_clock):
    with open_room(tmp_path) as room:
        async with room.connection() as stream:
            await stream.send_all(head("/health", "POST", Content_Length="100000000"))
            assert (await Answers(stream).next()).status == 405
            begun = trio.current_time()
            with suppress(trio.BrokenResourceError):
                while trio.current_time() < begun + 5:
                    await stream.send_all(bytes(65536))
                    await trio.sleep(0.01)
            assert trio.current_time() - begun < 1


async def test_a_silent_peer_is_dropped_at_the_head_deadline(tmp_path, autojump_clock):
    with open_room(tmp_path, head_deadline=3) as room:
        async with room.connection() as stream:
            begun = trio.current_time()
            await stream.send_all(b"GET / HTTP/1.1\r\n")
            assert await stream.receive_some() == b""
            assert trio.current_time() - begun == 3


async def test_a_head_that_comes_drop_by_drop_is_dropped_at_the_deadline(tmp_path, autojump_clock):
    with open_room(tmp_path, head_deadline=3) as room:
        async with room.connection() as stream, trio.open_nursery() as nursery:

            async def drip():
                for byte in head("/health") * 10:
                    await trio.sleep(0.5)
                    await stream.send_all(bytes([byte]))

            nursery.start_soon(drip)
            begun = trio.current_time()
            assert await stream.receive_some() == b""
            assert trio.current_time() - begun == 3
            nursery.cancel_scope.cancel()


async def test_an_idle_connection_is_dropped_at_the_keep_alive_deadline(tmp_path, autojump_clock):
    with open_room(tmp_path, head_deadline=3, keep_alive=30) as room:
        async with room.connection() as stream:
            await stream.send_all(head("/health"))
            await Answers(stream).next()
            begun = trio.current_time()
            assert await stream.receive_some() == b""
            assert trio.current_time() - begun == 30


@pytest.mark.parametrize(
    ("connection_header", "upgrade", "wants"),
    [
        ("Upgrade", "websocket", True),
        ("keep-alive, Upgrade", "WebSocket", True),
        ("upgrade,", "websocket", True),
        ("keep-alive", "websocket", False),
        ("Upgrade", "h2c", False),
        ("Upgrade", "", False),
        ("upgraded", "websocket", False),
    ],
)
def test_wants_websocket_needs_both_headers(connection_header, upgrade, wants):
    headers = {"connection": connection_header, "upgrade": upgrade}
    assert request(headers=headers).wants_websocket is wants


def test_a_request_without_headers_wants_nothing():
    assert (request().wants_websocket, request().cookies, request().token) == (False, {}, None)


@pytest.mark.parametrize(
    ("header", "cookies"),
    [
        ("a=b", {"a": "b"}),
        ("a=b; c=d=e", {"a": "b", "c": "d=e"}),
        ("a=b;c=d", {"a": "b", "c": "d"}),
        ("a", {"a": ""}),
        ("; ;=x", {}),
    ],
)
def test_cookies_are_read_by_name(header, cookies):
    assert request(headers={"cookie": header}).cookies == cookies


@pytest.mark.parametrize(
    ("query", "authorization", "token"),
    [
        ({"token": "q"}, "", "q"),
        ({}, "Bearer b", "b"),
        ({}, "bearer  b ", "b"),
        ({"token": "q"}, "Bearer b", "q"),
        ({}, "Basic b", None),
        ({}, "Bearer", ""),
    ],
)
def test_a_token_comes_by_query_or_as_bearer(query, authorization, token):
    assert request(query=query, headers={"authorization": authorization}).token == token


def test_text_and_json_say_what_they_are():
    assert http.text(404, "no", X_Y="z") == Response(
        404, b"no\n", {"Content-Type": "text/plain; charset=utf-8", "X-Y": "z"}
    )
    answer = http.json({"a": "ä"})
    assert (answer.status, answer.body) == (200, '{"a":"ä"}'.encode())
    assert answer.headers == {"Content-Type": "application/json", "Cache-Control": "no-store"}


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_that_may_have_no_body_says_no_length(status):
    ours, theirs = connection()
    await theirs.send_all(head("/") * 2)
    assert await ours.answer(await ours.receive(), Response(status))
    assert await ours.answer(await ours.receive(), http.text(200, "x"))
    answers = Answers(theirs)
    first = await answers.next()
    assert (first.status, "content-length" in first.headers) == (status, False)
    assert (await answers.next()).text == "x\n"


async def test_every_answer_carries_the_safety_headers(tmp_path):
    with open_room(tmp_path) as room, trio.fail_after(5):
        for target in ("/", "/health", "/ws", "/x?token=wrong"):
            answer = await room.get(target)
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
