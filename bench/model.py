"""The model's side: many sessions that stream at once, from the model through the SDK and the journal to a client each."""

import os
import re
import selectors
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing.connection import Connection

import msgspec
import trio

from bench.report import Figure, Table, percentile
from bench.running import LOAD_CORE, answer, cpu_seconds, other_process, pinned, serving
from bench.wire import Http, WebSocket

SESSIONS, RATE = 50, 60  # deltas per second of each
_BLOCK = 60  # deltas
# A delta's text is when the model sent it, on the clock that all processes share.
_FIRST = re.compile(rb'"position":0,"text":"(\d+) ')
_WARM_UP = 3.0  # s: until every session streams


def measure(quick: bool) -> Table:
    """CPU of the daemon alone: the model and the clients are other processes, on the other core."""
    rounds, seconds = (3, 4.0) if quick else (5, 10.0)
    with (
        other_process(_model, core=LOAD_CORE) as (model, _),
        _environment(ANTHROPIC_API_KEY="bench", ANTHROPIC_BASE_URL=f"http://127.0.0.1:{answer(model)}"),
        serving(model="claude-sonnet-5-5") as served,
        pinned(LOAD_CORE),
        ExitStack() as stack,
    ):
        http = stack.enter_context(Http(served.port))
        clients = []
        for number in range(SESSIONS):
            session = f"/api/sessions/s{number}"
            assert http.ask("POST", "/api/chat", {"message": "Go", "session_id": f"s{number}"}).status == 201
            clients.append(
                stack.enter_context(WebSocket(http.ask("GET", f"{session}?wait=60").json()["websocket_url"]))
            )
        _listen(clients, _WARM_UP)
        used, usual, worst, first = [], [], [], []
        for _ in range(rounds):
            before, began = cpu_seconds(served.pid), time.monotonic()
            heard = _listen(clients, seconds)
            took = time.monotonic() - began
            used.append((cpu_seconds(served.pid) - before) / took * 100)
            usual.append(percentile(heard, 0.5))
            worst.append(percentile(heard, 0.99))
            first.append(len(heard) / took)
    figures = [
        Figure("CPU of a core", used, "%", at_most=45),
        Figure("first delta of a block, model to client: p50", usual, "ms", at_most=1),
        Figure("first delta of a block, model to client: p99", worst, "ms"),
        Figure(f"first deltas heard, of {SESSIONS * RATE / _BLOCK:.0f} a second at full rate", first, "1/s"),
    ]
    how = (
        f"{rounds} rounds of {seconds:.0f} s: {SESSIONS} sessions of one `footlight serve`, {RATE} deltas per second each, one client each, deltas "
        f"merged over the default window; a block begins every {_BLOCK} deltas. The model is a process of its own that speaks the Messages API, the "
        "daemon asks it as it would ask a gateway; model and clients share the other core."
    )
    return Table("Model to client", how, figures)


def _listen(clients: list[WebSocket], seconds: float) -> list[float]:
    """Read what comes; how long first deltas took, in ms."""
    heard: list[float] = []
    until = time.monotonic() + seconds
    for client in clients:
        client.show_presence()
    with selectors.DefaultSelector() as ready:
        for client in clients:
            ready.register(client.socket, selectors.EVENT_READ)
        while (left := until - time.monotonic()) > 0:
            for key, _ in ready.select(left):
                data = key.fileobj.recv(1 << 16)  # type: ignore[union-attr]
                now = time.monotonic_ns()
                if not data:
                    raise ConnectionError("a session has ended")
                heard += [(now - int(sent)) / 1e6 for sent in _FIRST.findall(data)]
    return heard


@contextmanager
def _environment(**more: str) -> Iterator[None]:
    """For the processes that are started in the block."""
    os.environ.update(more)
    try:
        yield
    finally:
        for name in more:
            del os.environ[name]


def _model(connection: Connection) -> None:
    """The model's process: says its port."""
    trio.run(_serve_model, connection)


async def _serve_model(connection: Connection) -> None:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, _stream, 0, host="127.0.0.1"))
        connection.send(listeners[0].socket.getsockname()[1])


async def _stream(stream: trio.SocketStream) -> None:
    """A reply without end."""
    try:
        await stream.receive_some(1 << 16)
        await stream.send_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        await stream.send_all(_event({"type": "message_start", "message": {"usage": {"input_tokens": 1}}}))
        due, number = trio.current_time(), 0
        while True:
            block, place = divmod(number, _BLOCK)
            said = b""
            if place == 0:
                said = _event(
                    {"type": "content_block_start", "index": block, "content_block": {"type": "text", "text": ""}}
                )
            delta = {"type": "text_delta", "text": f"{time.monotonic_ns()} "}
            said += _event({"type": "content_block_delta", "index": block, "delta": delta})
            if place == _BLOCK - 1:
                said += _event({"type": "content_block_stop", "index": block})
            await stream.send_all(said)
            number += 1
            due += 1 / RATE
            await trio.sleep_until(due)
    except trio.BrokenResourceError:
        pass


def _event(event: dict[str, object]) -> bytes:
    """A chunk, as the API sends one for each event."""
    data = f"event: {event['type']}\ndata: ".encode() + msgspec.json.encode(event) + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(data), data)
