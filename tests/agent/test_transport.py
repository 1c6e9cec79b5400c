"""The connection to the model, over real sockets: answers gather, ends and beginnings are seen at once."""

import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio

from daemon.agent.transport import Gathered, Transport, open_client
from daemon.agent.windows import Windows
from tests.agent.stage import open_stage
from tests.standins.edge import make_certificate
from tests.support import kinds

ADDRESS = "127.0.0.1"
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
LONG = 3600.0  # s: a window that no test waits for
PIECE = b"x" * 120  # about as long as a piece of text is
ENDS = b"y" * 320  # as the end of a block and the beginning of the next
pytestmark = pytest.mark.filterwarnings("ignore:Async generator '(anthropic|httpx2|httpcore2):ResourceWarning")


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class Model:
    """A server whose one handler is the test's."""

    def __init__(self, handle: Callable[[trio.abc.Stream], Awaitable[None]], certificate: Path | None) -> None:
        self._handle = handle
        self._context = None
        if certificate is not None:
            self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self._context.load_cert_chain(certificate)
        self.connections = 0

    async def serve(self, stream: trio.abc.Stream) -> None:
        self.connections += 1
        if self._context is not None:
            stream = trio.SSLStream(stream, self._context, server_side=True)
        async with stream:
            await self._handle(stream)


@asynccontextmanager
async def serving(handle: Any, certificate: Path | None = None) -> AsyncIterator[tuple[Model, str]]:
    model = Model(handle, certificate)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(partial(trio.serve_tcp, model.serve, 0, host=ADDRESS))
            scheme = "http" if certificate is None else "https"
            yield model, f"{scheme}://{ADDRESS}:{listeners[0].socket.getsockname()[1]}"
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def client(certificate: Path | None = None, window: float = LONG) -> AsyncIterator[httpx2.AsyncClient]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if certificate is not None:
        context.load_verify_locations(certificate)
    windows = Windows(window)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(windows.run)
        async with httpx2.AsyncClient(transport=Transport(context, windows), timeout=10) as http:
            yield http
        nursery.cancel_scope.cancel()


async def asked(stream: trio.abc.Stream) -> bool:
    """Read one request; False at the end."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        received = await stream.receive_some(65536)
        if not received:
            return False
        data += received
    return True


class Talk:
    """A model that says what the test tells it to, piece by piece."""

    def __init__(self) -> None:
        self._say, self._hear = trio.open_memory_channel[bytes](0)
        self._said, self._done = trio.open_memory_channel[None](0)

    async def handle(self, stream: trio.abc.Stream) -> None:
        await asked(stream)
        await stream.send_all(HEAD)
        async for data in self._hear:
            await stream.send_all(data)
            await self._said.send(None)

    async def say(self, data: bytes) -> None:
        """It lies in the kernel when this returns."""
        await self._say.send(data)
        await self._done.receive()

    def leave(self) -> None:
        self._say.close()


@asynccontextmanager
async def talking(
    certificate: Path | None = None, window: float = LONG
) -> AsyncIterator[tuple[Talk, Gathered, AsyncIterator[bytes]]]:
    talk = Talk()
    async with (
        serving(talk.handle, certificate) as (_, url),
        client(certificate, window) as http,
        http.stream("GET", url) as response,
    ):
        connection = response.extensions["network_stream"]
        assert isinstance(connection, Gathered)
        yield talk, connection, response.aiter_raw()


@pytest.fixture(params=["plain", "tls"])
async def certificate(request, tmp_path) -> Path | None:
    return await make_certificate(tmp_path, [ADDRESS]) if request.param == "tls" else None


def lowat(connection: Gathered) -> int:
    return int(connection.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT))


async def test_short_pieces_gather_until_the_window_is_over(certificate):
    async with talking(certificate, window=0.3) as (talk, connection, received):
        await talk.say(chunk(PIECE))
        assert await anext(received) == PIECE
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.gather)
            await talk.say(chunk(b"1"))
            await talk.say(chunk(b"2"))
        assert trio.current_time() >= began + 0.3
        assert lowat(connection) == 1
        assert [await anext(received), await anext(received)] == [b"1", b"2"]


@pytest.mark.parametrize("records", [1, 20])
async def test_what_has_gathered_is_read_at_once_in_however_many_records(certificate, records):
    async with talking(certificate, window=0.2) as (talk, connection, _):
        for number in range(records):
            await talk.say(b"%02d" % number)
        await connection.gather()
        assert await connection.read(65536) == b"".join(b"%02d" % number for number in range(records))
        await talk.say(b"more")
        assert await connection.read(65536) == b"more"


async def test_reading_takes_no_more_than_was_asked_for(certificate):
    async with talking(certificate, window=0.2) as (talk, connection, _):
        for piece in (b"abc", b"def"):
            await talk.say(piece)
        await connection.gather()
        assert [await connection.read(4), await connection.read(4)] == [b"abcd", b"ef"]


async def test_nothing_gathers_while_something_that_came_is_still_to_be_read(certificate):
    async with talking(certificate) as (talk, connection, _):
        await talk.say(b"x" * 1000)
        assert len(await connection.read(600)) == 600
        await connection.gather()
        assert len(await connection.read(600)) == 400


async def test_end_of_a_block_and_beginning_of_the_next_are_seen_at_once(certificate):
    async with talking(certificate) as (talk, connection, received), trio.open_nursery() as nursery:
        nursery.start_soon(connection.gather)
        await talk.say(chunk(ENDS))
        with trio.fail_after(5):
            assert await anext(received) == ENDS


async def test_end_of_the_connection_ends_the_gathering(certificate):
    async with talking(certificate) as (talk, connection, received):
        await talk.say(chunk(b"last"))
        talk.leave()
        await connection.gather()
        assert await anext(received) == b"last"
        with pytest.raises(httpx2.RemoteProtocolError):
            await anext(received)


async def test_cancelled_while_gathering_loses_nothing(certificate):
    async with talking(certificate) as (talk, connection, received):
        with trio.move_on_after(0.1) as scope:
            await connection.gather()
        assert scope.cancelled_caught
        assert lowat(connection) == 1
        await talk.say(chunk(b"1"))
        assert await anext(received) == b"1"


async def test_gathering_on_a_connection_that_was_closed_ends(certificate):
    async with talking(certificate) as (_, connection, received):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.gather)
            await trio.testing.wait_all_tasks_blocked()
            await connection.aclose()
        await connection.gather()
        with pytest.raises(httpx2.ReadError):
            await anext(received)


@pytest.mark.parametrize("chunks", [1, 5])
async def test_reader_is_told_when_all_that_came_was_passed_on_and_gets_it_at_once(certificate, chunks):
    async with talking(certificate, window=0.1) as (talk, connection, received):
        said = []

        async def when_dry() -> None:
            said.append("dry")
            await connection.gather()

        with connection.answering(when_dry, chunked=True):
            for _ in range(chunks):
                await talk.say(chunk(PIECE))
            said.append(await anext(received))
            talk.leave()
            with pytest.raises(httpx2.RemoteProtocolError):
                await anext(received)
        assert said == ["dry", PIECE * chunks, "dry"]


@pytest.mark.parametrize("with_head", range(0, 31, 3))
async def test_answer_is_whole_however_much_of_it_came_with_the_head(with_head):
    body = b"".join(map(chunk, (b"one ", b"two ", b"three "))) + b"0\r\n\r\n"

    async def answer(stream: trio.abc.Stream) -> None:
        while await asked(stream):
            await stream.send_all(HEAD + body[:with_head])
            await dry.wait()
            await stream.send_all(body[with_head:])

    async def when_dry() -> None:
        dry.set()

    async with serving(answer) as (model, url), client() as http:
        for _ in range(2):
            dry = trio.Event()
            async with http.stream("GET", url) as response:
                connection = response.extensions["network_stream"]
                with connection.answering(when_dry, chunked=True):
                    assert await response.aread() == b"one two three "
        assert model.connections == 1


async def test_connection_is_used_again_after_an_answer(certificate):
    async def answer(stream: trio.abc.Stream) -> None:
        while await asked(stream):
            await stream.send_all(HEAD + chunk(b"all") + b"0\r\n\r\n")

    async with serving(answer, certificate) as (model, url), client(certificate) as http:
        for _ in range(3):
            async with http.stream("GET", url) as response:
                assert await response.aread() == b"all"
        assert model.connections == 1


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"", httpx2.RemoteProtocolError),
        (b"garbage\r\n\r\n", httpx2.RemoteProtocolError),
        (HEAD + b"zz", httpx2.RemoteProtocolError),
    ],
)
async def test_errors_are_those_of_httpx(said, error):
    async def answer(stream: trio.abc.Stream) -> None:
        await asked(stream)
        await stream.send_all(said)

    async with serving(answer) as (_, url), client() as http:
        with pytest.raises(error):
            await http.get(url)


async def test_nobody_there_is_an_error_of_httpx(unused_address):
    async with client() as http:
        with pytest.raises(httpx2.ConnectError):
            await http.get(unused_address)


@pytest.fixture
def unused_address():
    with socket.create_server((ADDRESS, 0)) as server:
        port = server.getsockname()[1]
    return f"http://{ADDRESS}:{port}"


async def test_silence_beyond_the_timeout_is_an_error_of_httpx():
    async def answer(stream: trio.abc.Stream) -> None:
        await trio.sleep_forever()

    async with serving(answer) as (_, url), client() as http:
        with pytest.raises(httpx2.ReadTimeout):
            await http.get(url, timeout=0.1)


@pytest.mark.parametrize("loopback", [False, True])
async def test_proxy_of_the_environment_is_used_but_for_loopback(monkeypatch, loopback):
    heads = []

    async def answer(stream: trio.abc.Stream) -> None:
        heads.append(await stream.receive_some(65536))
        await stream.send_all(b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")

    async with serving(answer) as (_, proxy), serving(answer) as (_, direct):
        monkeypatch.setenv("http_proxy", proxy)
        anthropic_client = open_client("key", direct, Windows(LONG), loopback=loopback)
        with pytest.raises(Exception, match="404"):
            await anthropic_client.models.retrieve("m")
        await anthropic_client.close()
    assert heads[0].startswith(b"GET /v1" if loopback else f"GET {direct}/v1".encode())


async def test_first_piece_of_each_block_and_the_end_do_not_wait_for_the_window(tmp_path):
    script = """
[pace]
first_delta_ms = 10
characters_per_second = 200
chunk_characters = 4
[[turn]]
[[turn.step]]
thinking = "one two three four five six seven eight nine ten eleven twelve"
text = "once upon a time there was a model that liked to take its time"
"""
    async with (
        open_stage(tmp_path, script, script_pace=1.0, delta_window=LONG) as stage,
        stage.play() as play,
    ):
        with trio.fail_after(10):
            events = await play.prompt("go")
        assert kinds(events) == ["turn_start", "claude_thinking", "claude_text", "turn_complete"]
        for kind, first in (("claude_thinking_delta", "one "), ("claude_text_delta", "once")):
            texts = [data["text"] for data in play.of(kind)]
            assert texts[0] == first
            assert 1 < len(texts) <= 8  # of 16 pieces: most were sent together
