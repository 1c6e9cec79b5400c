"""Asking a URL through its tunnel, against edges that answer rightly, wrongly, late, for ever or not at all."""

import os
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import h11
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support import descriptors, steps_of
from tunnel import TunnelError
from tunnel.probe import fetch, verify

FAST = 50.0  # the clock's rate where a test would have to wait for the probe's own deadlines
MARK = b'"session":"mine"'
Handle = Callable[[trio.SocketStream], Awaitable[None]]


@asynccontextmanager
async def edge(handle: Handle) -> AsyncIterator[str]:
    """A URL whose connections are handed to `handle` once their request has been read."""

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            try:
                if await request_of(stream):
                    await handle(stream)
            except trio.BrokenResourceError:
                pass  # the probe had enough

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/health"
        nursery.cancel_scope.cancel()


async def request_of(stream: trio.abc.ReceiveStream) -> bytes:
    request = b""
    while b"\r\n\r\n" not in request and (more := await stream.receive_some()):
        request += more
    return request


def answer(body: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


RIGHT = answer(b"{" + MARK + b"}")


class Edge:
    """Says its answers one after the other, one a connection, and the last one from then on."""

    def __init__(self, *answers: bytes | None) -> None:
        self._answers = answers
        self.asked = 0

    async def __call__(self, stream: trio.SocketStream) -> None:
        said = self._answers[min(self.asked, len(self._answers) - 1)]
        self.asked += 1
        if said is None:
            await stream.receive_some()  # silent until the probe goes away
        else:
            await stream.send_all(said)


async def ask(url: str, *, deadline: float = 5.0, pause: float = 0.01) -> None:
    with trio.fail_after(deadline + 250):  # a clock that runs fast makes a stall of the machine long
        await verify(url, MARK, headers={}, deadline=deadline, pause=pause)


# --- what is an answer


@pytest.mark.parametrize(
    "said",
    [
        RIGHT,
        b"HTTP/1.1 200 OK\r\n\r\n" + MARK,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n" + MARK + b"\r\n0\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n" + RIGHT,
        b"HTTP/1.0 200 OK\r\n\r\n" + MARK,
    ],
    ids=["length", "until the end", "chunked", "hints first", "HTTP/1.0"],
)
async def test_right_answer_is_taken_at_once(said) -> None:
    there = Edge(said)
    async with edge(there) as url:
        await ask(url)
    assert there.asked == 1


async def test_request_carries_path_headers_and_the_words_that_skip_an_interstitial() -> None:
    seen: list[bytes] = []

    async def handle(stream: trio.SocketStream) -> None:
        seen.append(await request_of(stream))
        await stream.send_all(RIGHT)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        with trio.fail_after(5):
            url = f"http://127.0.0.1:{port}/s/a/health?b=c"
            await verify(url, MARK, headers={"Authorization": "Bearer t"}, deadline=5)
        nursery.cancel_scope.cancel()
    first, *lines = seen[0].decode().rstrip().split("\r\n")
    assert first == "GET /s/a/health?b=c HTTP/1.1"
    named = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    assert named == {
        "host": f"127.0.0.1:{port}",
        "connection": "close",
        "user-agent": "footlight",
        "ngrok-skip-browser-warning": "1",
        "authorization": "Bearer t",
    }


async def test_url_without_a_path_asks_for_the_root() -> None:
    async with edge(Edge(RIGHT)) as url:
        with trio.fail_after(5):
            assert await fetch(url.removesuffix("/health"), {}) == (200, b"{" + MARK + b"}")


# --- what is none


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (answer(b'{"session":"another"}'), "something else answers there"),
        (answer(b"<!doctype html><h1>You are about to visit</h1>"), "something else answers there"),
        (answer(b""), "something else answers there"),
        (answer(MARK, b"404 Not Found"), "status 404"),
        (answer(MARK, b"502 Bad Gateway"), "status 502"),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", "status 302"),
        (answer(MARK, b"206 Partial Content"), "status 206"),
        (b"", "RemoteProtocolError"),
        (b"SSH-2.0-x\r\n\r\n", "RemoteProtocolError"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n" + MARK, "RemoteProtocolError"),
    ],
    ids=["another", "interstitial", "empty", "404", "502", "302", "206", "closed", "no HTTP", "cut off"],
)
async def test_wrong_answer_is_asked_again_until_the_deadline(mock_clock: MockClock, said, why) -> None:
    mock_clock.rate = FAST
    there = Edge(said)
    async with edge(there) as url:
        with pytest.raises(TunnelError, match=why) as error:
            await ask(url, deadline=4.0, pause=0.1)
    assert error.value.code == "url_not_reachable"
    assert "within 4 s" in error.value.detail
    assert there.asked > 1


@pytest.mark.parametrize(
    "first",
    [answer(b"warming up"), answer(MARK, b"404 Not Found"), b"", b"garbage\r\n\r\n"],
    ids=["another", "404", "closed", "no HTTP"],
)
async def test_wrong_answers_before_the_right_one_do_no_harm(first) -> None:
    there = Edge(first, first, RIGHT)
    async with edge(there) as url:
        await ask(url)
    assert there.asked == 3


async def test_port_that_refuses_at_first_is_asked_again() -> None:
    pause = 0.1
    listener = trio.socket.socket()
    with listener:
        await listener.bind(("127.0.0.1", 0))  # not listening yet: connecting is refused
        begun = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(ask, f"http://127.0.0.1:{listener.getsockname()[1]}/health", pause=pause))
            await wait_all_tasks_blocked(0.01)
            listener.listen()
            with trio.fail_after(5):
                accepted, _ = await listener.accept()
                async with trio.SocketStream(accepted) as stream:
                    await request_of(stream)
                    await stream.send_all(RIGHT)
        assert trio.current_time() - begun >= pause


async def test_port_that_keeps_refusing_is_an_error_after_the_deadline() -> None:
    with trio.socket.socket() as listener:
        await listener.bind(("127.0.0.1", 0))
        with pytest.raises(TunnelError, match=r"OSError|ConnectionRefused") as error:
            await ask(f"http://127.0.0.1:{listener.getsockname()[1]}", deadline=0.1)
    assert error.value.code == "url_not_reachable"


async def test_pauses_grow_so_that_a_dead_edge_is_not_hammered(mock_clock: MockClock) -> None:
    mock_clock.rate = FAST
    there = Edge(b"")
    async with edge(there) as url:
        with pytest.raises(TunnelError):
            await ask(url, deadline=20.0, pause=0.1)
    assert 5 <= there.asked <= 15  # 0.1 + 0.2 + 0.4 + 0.8 + 1.6 + 2 + 2 + …; even pauses of 0.1 s were 200


# --- what does not end


async def test_silent_edge_ends_at_the_deadline(mock_clock: MockClock) -> None:
    mock_clock.rate = FAST
    begun = trio.current_time()
    async with edge(Edge(None)) as url:
        with pytest.raises(TunnelError, match=r"within 3 s \(no answer\)") as error:
            await ask(url, deadline=3.0)
    assert error.value.code == "url_not_reachable"
    assert trio.current_time() - begun >= 3


async def test_request_that_an_edge_swallowed_is_sent_again(mock_clock: MockClock) -> None:
    mock_clock.rate = FAST
    there = Edge(None, RIGHT)
    async with edge(there) as url:
        await ask(url, deadline=60.0)
    assert there.asked == 2


class Endless:
    """Sends a head and then a piece for ever; `sent` is what the system took before the probe went away."""

    def __init__(self, head: bytes, piece: bytes) -> None:
        self._head, self._piece = head, piece
        self.sent = 0
        self.broken = trio.Event()

    async def __call__(self, stream: trio.SocketStream) -> None:
        try:
            await stream.send_all(self._head)
            while True:
                await stream.send_all(self._piece)
                self.sent += len(self._piece)
        finally:
            self.broken.set()


async def test_body_without_an_end_is_read_to_a_bound() -> None:
    there = Endless(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 1024)
    with trio.fail_after(5):
        async with edge(there) as url:
            status, body = await fetch(url, {})
            await there.broken.wait()
    assert status == 200
    assert 64 * 1024 < len(body) <= 64 * 1024 + 16 * 1024


async def test_mark_within_the_bound_of_an_endless_body_is_found() -> None:
    async with edge(Endless(b"HTTP/1.1 200 OK\r\n\r\n" + MARK, b"x" * 1024)) as url:
        await ask(url)


async def test_head_without_an_end_is_read_to_a_bound() -> None:
    there = Endless(b"HTTP/1.1 200 OK\r\n", b"X-Pad: " + b"x" * 1000 + b"\r\n")
    with trio.fail_after(5):
        async with edge(there) as url:
            with pytest.raises(h11.RemoteProtocolError):
                await fetch(url, {})
            await there.broken.wait()


# --- cancellation


@pytest.mark.parametrize("said", [RIGHT, None, b"", answer(b"another")], ids=["right", "silent", "closed", "another"])
async def test_no_socket_is_left_wherever_it_is_cancelled(said) -> None:
    with trio.fail_after(10):
        async with edge(Edge(said)) as url:
            before = descriptors()

            async def body() -> None:
                with trio.move_on_after(0.02):
                    await verify(url, MARK, headers={}, deadline=5, pause=0.005)

            steps = await steps_of(body)
            assert steps > 2
            for step in range(1, steps + 1):
                await steps_of(body, step)
                while descriptors() != before:  # the edge's own end closes a moment later
                    await trio.lowlevel.checkpoint()


async def test_cancellation_is_not_turned_into_an_error() -> None:
    there = Edge(None)
    with trio.fail_after(5):
        async with edge(there) as url, trio.open_nursery() as nursery:
            nursery.start_soon(partial(ask, url))
            while not there.asked:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
    assert nursery.cancel_scope.cancelled_caught


# --- https


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("making a certificate needs openssl")
    home = tmp_path_factory.mktemp("certificate")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=edge", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=home, check=True, capture_output=True, timeout=20,
    )  # fmt: skip
    return home


@asynccontextmanager
async def secure_edge(certificate, said: bytes) -> AsyncIterator[str]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")

    async def handle(stream: trio.SSLStream) -> None:
        try:
            await request_of(stream)
            await stream.send_all(said)
        except trio.BrokenResourceError:
            pass  # it did not trust the certificate
        finally:
            await trio.aclose_forcefully(stream)  # without a close_notify, as servers do

    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_ssl_over_tcp, handle, 0, context, host="127.0.0.1", https_compatible=True)
        listeners = await nursery.start(serve)
        yield f"https://127.0.0.1:{listeners[0].transport_listener.socket.getsockname()[1]}/health"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("said", [RIGHT, b"HTTP/1.1 200 OK\r\n\r\n" + MARK], ids=["length", "until the end"])
async def test_right_answer_over_https_is_taken(certificate, monkeypatch, said) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", os.fspath(certificate / "cert.pem"))
    async with secure_edge(certificate, said) as url:
        await ask(url, deadline=2.0)


async def test_certificate_that_nobody_vouches_for_is_no_answer(certificate, monkeypatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    async with secure_edge(certificate, RIGHT) as url:
        with pytest.raises(TunnelError, match="url_not_reachable") as error:
            await ask(url, deadline=0.3)
    assert error.value.code == "url_not_reachable"


async def test_https_to_an_edge_that_speaks_http_is_no_answer() -> None:
    async with edge(Edge(RIGHT)) as url:
        with pytest.raises(TunnelError, match="url_not_reachable"):
            await ask(url.replace("http:", "https:"), deadline=0.3)
