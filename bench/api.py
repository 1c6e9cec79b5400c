"""GET of a session, beside a route of the same frameworks that does nothing else."""

import selectors
import socket
import time
from multiprocessing.connection import Connection

import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.trio import serve
from quart import Response
from quart_trio import QuartTrio

from bench.report import Figure, Table
from bench.running import LOAD_CORE, SERVER_CORE, answer, cpu_seconds, other_process, pinned, serving
from bench.wire import Http, WebSocket, connect, request_bytes

CONNECTIONS = 32
_TARGET = "/api/sessions/bench"


def measure(quick: bool) -> Table:
    """Rounds of footlight and the bare route in turn, each alone on its core."""
    rounds, seconds = (3, 1.0) if quick else (7, 3.0)
    with serving() as served, pinned(LOAD_CORE), Http(served.port) as http:
        http.ask("POST", "/api/chat", {"message": "A menu", "session_id": "bench"})
        url = http.ask("GET", f"{_TARGET}?wait=60").json()["websocket_url"]
        with WebSocket(url) as ws:
            ws.until(b"ready_for_input")
        body = http.ask("GET", _TARGET).body
        with other_process(_bare, body, core=SERVER_CORE) as (bare, bare_pid):
            bare_port = answer(bare)
            results = []
            for _ in range(rounds):
                ours = _load(served.port, served.pid, seconds)
                results.append((ours, _load(bare_port, bare_pid, seconds)))
    figures = [
        Figure("footlight: requests for a second of CPU", [ours for (ours, _), _ in results], "/s"),
        Figure("bare route: requests for a second of CPU", [bare for _, (bare, _) in results], "/s"),
        Figure("footlight / bare route", [ours / bare for (ours, _), (bare, _) in results], "x", at_least=0.9),
        Figure("share of its core that footlight used", [share * 100 for (_, share), _ in results], "%"),
    ]
    how = (
        f"`GET {_TARGET}` over {CONNECTIONS} kept connections, {seconds:g} s a round, {len(body)} bytes of JSON; the bare route is "
        "`hypercorn.trio.serve` with a Quart-Trio route that answers the same bytes. Near 100 % of a core, the client is no limit."
    )
    return Table("API: GET session", how, figures)


def _load(port: int, pid: int, seconds: float) -> tuple[float, float]:
    """Requests for a second of the server's CPU, and how much of the time it used."""
    request, done = request_bytes("GET", _TARGET), 0
    with selectors.DefaultSelector() as selector:
        sockets = {each.fileno(): each for each in (connect(port) for _ in range(CONNECTIONS))}
        for each in sockets.values():
            selector.register(each, selectors.EVENT_READ, bytearray())
            each.sendall(request)
        began, cpu = time.perf_counter(), cpu_seconds(pid)
        while (passed := time.perf_counter() - began) < seconds:
            for key, _ in selector.select(1):
                if _whole(sockets[key.fd], key.data):
                    sockets[key.fd].sendall(request)
                    done += 1
        cpu = cpu_seconds(pid) - cpu
        for each in sockets.values():
            each.close()
    return done / cpu, cpu / passed


def _whole(connection: socket.socket, ahead: bytearray) -> bool:
    """Read; whether an answer is whole now, which empties `ahead`."""
    ahead += connection.recv(65536)
    head = ahead.find(b"\r\n\r\n") + 4
    if head < 4:
        return False
    length = ahead.lower().index(b"content-length:") + 15
    if len(ahead) < head + int(ahead[length : ahead.index(b"\r", length)]):
        return False
    assert ahead.startswith(b"HTTP/1.1 200")
    ahead.clear()
    return True


def _bare(connection: Connection, body: bytes) -> None:
    """The peer: one route, the same answer; tells its port."""
    app = QuartTrio("bare")

    @app.get("/api/sessions/<session_id>")
    async def get(session_id: str) -> Response:  # noqa: ARG001
        return Response(body, content_type="application/json")

    config = HypercornConfig()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = None
    config.keep_alive_max_requests = 1 << 62

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            (bound,) = await nursery.start(serve, app, config)
            connection.send(int(bound.rpartition(":")[2]))

    trio.run(main)
