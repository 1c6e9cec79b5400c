from contextlib import suppress

import httpx2
import pytest
import trio

from daemon.api.server import ApiConnections
from daemon.serving import Server, open_listeners
from daemon.serving import port_of as port_of_listeners
from daemon.testing import open_test_daemon, test_config
from tests.api.calls import assert_problem, head, holding, port_of, read_until
from tests.support import api, descriptors

HEALTH = head("GET", "/health")


async def connect(daemon):
    return await trio.open_tcp_stream("127.0.0.1", port_of(daemon))


async def ended(stream) -> bool:
    """Whether the peer closed, by a clean end or a reset."""
    try:
        return await stream.receive_some(1) == b""
    except trio.BrokenResourceError:
        return True


async def test_pipelined_requests_are_answered_in_order(daemon):
    async with await connect(daemon) as stream:
        with trio.fail_after(10):
            await stream.send_all(HEALTH + head("GET", "/nope") + head("GET", "/api/sessions"))
            answers = await read_until(stream, b'"next_cursor":null}')
        found = [line for line in answers.split(b"\r\n") if b"HTTP/1.1" in line]
        assert [line[line.index(b"HTTP/1.1") :][:12] for line in found] == [
            b"HTTP/1.1 200",
            b"HTTP/1.1 404",
            b"HTTP/1.1 200",
        ]


@pytest.mark.parametrize("requests", [0, 1, 3])
async def test_idle_connection_ends_after_its_time(tmp_path, requests):
    with trio.fail_after(20):
        async with open_test_daemon(tmp_path, keep_alive=0.05) as daemon, await connect(daemon) as stream:
            for _ in range(requests):
                await stream.send_all(HEALTH)
                await read_until(stream, b"}")
            assert await ended(stream)


@pytest.mark.parametrize("requests", [0, 1, 3])
async def test_idle_connections_end_at_once_when_the_daemon_ends(tmp_path, requests):
    with trio.fail_after(30):
        async with open_test_daemon(tmp_path, api_grace=10.0) as daemon:
            streams = [await connect(daemon) for _ in range(3)]
            for stream in streams:
                for _ in range(requests):
                    await stream.send_all(HEALTH)
                    await read_until(stream, b"}")
            started = trio.current_time()
        assert trio.current_time() - started < 5
        for stream in streams:
            assert await ended(stream)
            await stream.aclose()


async def test_connection_is_of_use_after_a_body_that_nobody_read(daemon):
    async with await connect(daemon) as stream:
        for path in ("/api/chat", "/nope", "/health"):
            for size in (1000, (1 << 20) + 1, 3 << 20):
                with trio.fail_after(10):
                    await stream.send_all(
                        head("POST", path, "Content-Type: application/json", f"Content-Length: {size}") + b"x" * size
                    )
                    answer = await read_until(stream, b"}")
                    assert answer.split(b" ")[1] in {b"400", b"404", b"405", b"413"}, (path, size)
                    await stream.send_all(HEALTH)
                    assert (await read_until(stream, b"}")).startswith(b"HTTP/1.1 200 "), (path, size)


async def test_refusal_does_not_wait_for_a_body_that_never_comes(tmp_path):
    with trio.fail_after(20):
        async with open_test_daemon(tmp_path, api_grace=0.05) as daemon, await connect(daemon) as stream:
            await stream.send_all(head("POST", "/nope", "Content-Length: 100"))
            assert (await read_until(stream, b"}")).startswith(b"HTTP/1.1 404 ")
            assert await ended(stream)


async def test_body_that_never_comes_is_given_up(tmp_path):
    with trio.fail_after(20):
        async with (
            open_test_daemon(tmp_path, head_deadline=0.05, api_grace=0.05) as daemon,
            await connect(daemon) as stream,
        ):
            await stream.send_all(head("POST", "/api/chat", "Content-Type: application/json", "Content-Length: 100"))
            answer = await read_until(stream, b"}")
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b'"code":"request_timeout"' in answer
            assert daemon.registry.counts()["created"] == 0


HOSTILE = [
    b"\x00\xff\x16\x03\x01" * 50,
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: \xff\xfe\r\n\r\n",
    b"GET /%ff%00 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b"GET http://evil.example/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
    b"POST /api/chat HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /api/chat HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST /api/chat HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nmore bytes",
    b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nHTTP2-Settings: !\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100,
]


async def test_hostile_bytes_end_their_connection_alone(daemon):
    async with api(daemon.url) as client:
        for hostile in HOSTILE:
            async with await connect(daemon) as stream:
                await stream.send_all(hostile)
                with suppress(trio.BrokenResourceError, OSError):
                    await stream.send_eof()
                with trio.fail_after(5):
                    while not await ended(stream):
                        pass
            assert (await client.get("/health")).status_code == 200, hostile[:100]
        assert daemon.registry.counts()["created"] == 0


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x00\xff\x16\x03\x01" * 50 + b"\r\n\r\n", 400),
        (b"hello\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\n\r\n", 400),
        (b"POST /api/chat HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /api/chat HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 1_000_000 + b"\r\n\r\n", 431),
    ],
    ids=["bytes", "words", "no host", "length", "encoding", "long"],
)
async def test_what_is_no_request_is_refused_with_a_problem(daemon, sent, status):
    async with await connect(daemon) as stream:
        with trio.fail_after(5):
            await stream.send_all(sent)
            answer = await read_until(stream, b"\0nothing\0")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\ncontent-length: %d\r\n" % len(body) in head
    headers = {"Content-Type": "application/problem+json"}
    assert_problem(httpx2.Response(status, headers=headers, content=body), status, "invalid_request")
    assert b"\r\ncontent-type: application/problem+json\r\n" in head


async def test_client_that_leaves_frees_its_request(daemon):
    async with api(daemon.url) as client:
        await client.get("/health")
        before = trio.lowlevel.current_statistics().tasks_living, len(descriptors())
        await client.post("/api/chat", json={"message": "hold on", "session_id": "abc"})
        await client.delete("/api/sessions/abc")
        stream = await connect(daemon)
        await stream.send_all(head("POST", "/api/chat", "Content-Type: application/json", "Content-Length: 100") + b"{")
        await trio.aclose_forcefully(stream)
        with trio.fail_after(5):
            while trio.lowlevel.current_statistics().tasks_living > before[0] + 3 or len(descriptors()) > before[1] + 3:
                await trio.sleep(0.005)


# --- the seam alone: an app of the test's own on a server of ours


class Serving:
    """An ASGI app that answers when it is told to, on `ApiConnections`."""

    def __init__(self, tmp_path, *, grace: float, body: bytes = b"done") -> None:
        self.asked = trio.Event()
        self.answer = trio.Event()
        self.cancelled = False
        self._body = body
        connections = ApiConnections(self.app, test_config(tmp_path))
        self.server = Server(
            connections.handle, max_connections=10, user_timeout=30, grace=grace, on_drain=connections.close_idle
        )

    async def app(self, scope, receive, send) -> None:
        assert scope["type"] == "http"
        self.asked.set()
        try:
            await receive()
            await self.answer.wait()
            headers = [(b"content-length", str(len(self._body)).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": self._body, "more_body": False})
        except trio.Cancelled:
            self.cancelled = True
            raise

    async def open(self, nursery) -> trio.SocketStream:
        listeners = await open_listeners("127.0.0.1", 0, 10)
        self.scope = await nursery.start(self._run, listeners)
        return await trio.open_tcp_stream("127.0.0.1", port_of_listeners(listeners))

    async def _run(self, listeners, *, task_status) -> None:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(self.server.serve, listeners)
                task_status.started(scope)


async def test_connection_lives_for_more_than_a_thousand_requests(tmp_path):
    serving = Serving(tmp_path, grace=1)
    serving.answer.set()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery, await serving.open(nursery) as stream:
            for _ in range(1100):
                await stream.send_all(head("GET", "/"))
                answer = await read_until(stream, b"done")
                assert answer.startswith(b"HTTP/1.1 200 ")
                assert b"connection: close" not in answer.lower()
            nursery.cancel_scope.cancel()


async def test_request_under_way_finishes_within_the_grace(tmp_path):
    serving = Serving(tmp_path, grace=10)
    with trio.fail_after(15):
        async with trio.open_nursery() as nursery, await serving.open(nursery) as stream:
            await stream.send_all(head("GET", "/"))
            await serving.asked.wait()
            serving.scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            serving.answer.set()
            assert (await read_until(stream, b"done")).endswith(b"done")
            assert await ended(stream)
    assert serving.server.connections == 0
    assert not serving.cancelled


async def test_request_under_way_is_cut_when_the_grace_is_over(tmp_path):
    serving = Serving(tmp_path, grace=0.05)
    with trio.fail_after(15):
        async with trio.open_nursery() as nursery, await serving.open(nursery) as stream:
            await stream.send_all(head("GET", "/"))
            await serving.asked.wait()
            serving.scope.cancel()
            assert await ended(stream)
    assert serving.server.connections == 0
    assert serving.cancelled


async def test_reader_that_stalls_is_closed_by_force(tmp_path):
    serving = Serving(tmp_path, grace=0.05, body=b"x" * (64 << 20))
    serving.answer.set()
    with trio.fail_after(15):
        async with trio.open_nursery() as nursery, await serving.open(nursery) as stream:
            await stream.send_all(head("GET", "/"))
            await serving.asked.wait()
            started = trio.current_time()
            serving.scope.cancel()
            while serving.server.connections:
                await trio.sleep(0.005)
            assert trio.current_time() - started < 5
            nursery.cancel_scope.cancel()


async def test_whole_daemon_ends_in_time_when_readers_stall(tmp_path):
    with trio.fail_after(30):
        settings = {**holding(tmp_path), "api_grace": 0.1, "max_message": 900_000}
        async with open_test_daemon(tmp_path / "state", **settings) as daemon, api(daemon.url) as client:
            for number in range(20):
                await client.post("/api/chat", json={"message": f"hold {number}" + "x" * 800_000, "session_id": "abc"})
            stalled = [await connect(daemon) for _ in range(5)]
            for stream in stalled:
                await stream.send_all(head("GET", "/api/sessions/abc/events") * 5)
            await trio.testing.wait_all_tasks_blocked(0.05)
            started = trio.current_time()
        assert trio.current_time() - started < 5
        for stream in stalled:
            await stream.aclose()
