"""A late joiner: 100,000 events over a real socket, beside the fastest ways to send the same bytes."""

import socket
import time
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from bench.journal import event_data, open_journals
from bench.replay_servers import LIVE_PAUSE, senders, session_ports
from bench.report import Figure, Table, percentile
from bench.running import LOAD_CORE, SERVER_CORE, answer, other_process, pinned
from bench.servers import NO_RIVALS, open_peer, peers
from bench.wire import WebSocket, connect, upgrade_bytes

_BUFFER = 1 << 20


def measure(quick: bool) -> Table:
    """Footlight, `sendall` and `sendfile` in turn; again while a client of another session follows; then the peers."""
    events, rounds = (20_000, 5) if quick else (100_000, 15)
    with TemporaryDirectory(prefix="footlight-bench-") as name:
        folder = Path(name)
        with open_journals(folder, 1) as (journal,):
            data = event_data(journal.session_id, offset=events // 2)
            for _ in range(events):
                journal.append("claude_text", **data)
            path = journal.folder / "000000000001.frames"
        frames = path.read_bytes()
        with (
            other_process(session_ports, folder, core=SERVER_CORE) as (ours, _),
            other_process(senders, path, core=SERVER_CORE) as (plain, _),
            pinned(LOAD_CORE),
        ):
            replayed, live = answer(ours)
            ports: dict[str, int] = answer(plain)
            assert _join(replayed, len(frames), keep=True) == frames
            times: dict[str, list[float]] = {"footlight": [], "sendall": [], "sendfile": []}
            for _ in range(rounds):
                times["footlight"].append(_timed(_join, replayed, len(frames)))
                for name, port in ports.items():
                    times[name].append(_timed(_fetch, port, len(frames)))
            with other_process(_watch, live, core=LOAD_CORE) as (watcher, _):
                answer(watcher)
                time.sleep(0.5)
                watcher.send("alone")
                alone = answer(watcher)
                beside = []
                for _ in range(rounds):
                    _join(replayed, len(frames))
                    time.sleep(0.005)
                    watcher.send("during")
                    beside.append(answer(watcher))
    picked = {name: command for name, command in peers().items() if name not in NO_RIVALS}
    rivals = {name: _peer(command, events, 2 if quick else 3) for name, command in picked.items()}
    ratio = [ours / limit for ours, limit in zip(times["footlight"], times["sendall"], strict=True)]
    figures = [
        Figure(f"{name}: the last of {events:,} events is there", times[name], "ms")
        for name in ("footlight", "sendall", "sendfile")
    ]
    figures += [
        Figure(f"{name}: the last of {events:,} events is there", values, "ms") for name, values in rivals.items()
    ]
    if rivals:
        best = min(map(median, rivals.values()))
        figures.append(
            Figure("footlight / the best peer", [ours / best for ours in times["footlight"]], "x", at_most=0.1)
        )
    figures += [
        Figure("footlight / blocking sendall", ratio, "x", at_most=2),
        Figure(
            "another session's live client meanwhile: delay p50", [percentile(delays, 0.5) for delays in beside], "ms"
        ),
        Figure(
            "another session's live client meanwhile: longest delay",
            [max(delays) for delays in beside],
            "ms",
            at_most=5,
        ),
        Figure("the same client with no replay: delay p50", [percentile(alone, 0.5)], "ms"),
        Figure("the same client with no replay: p99", [percentile(alone, 0.99)], "ms"),
    ]
    how = f"{len(frames) / 1e6:.0f} MB from `daemon.clients.port` over the journal's file to a reader in another process, from the upgrade request to the last byte; `sendall` and `sendfile` send the same file. The servers that a user would pick send as many ready payloads of 500 bytes, one message each, to a client that has joined. The delay is from when an event was due (one each {LIVE_PAUSE * 1e3:g} ms) to its being read; Trio's timer alone is up to 1 ms late."
    return Table("Replay to a late joiner", how, figures)


def _peer(command: list[str], events: int, rounds: int) -> list[float]:
    """How long a peer takes to give a client all of them, in ms."""
    with pinned(LOAD_CORE), open_peer(command) as server:
        server.run("replay 10", 1, 10)
        return [server.run(f"replay {events}", 1, events)[1].seconds * 1e3 for _ in range(rounds)]


def _timed(fetch: Any, *args: Any) -> float:
    began = time.perf_counter()
    fetch(*args)
    return (time.perf_counter() - began) * 1e3


def _join(url: tuple[int, str], size: int, *, keep: bool = False) -> bytes:
    """Join a session and read until `size` bytes of journal are there; them, where they are wanted."""
    port, target = url
    with connect(port) as connection:
        connection.sendall(upgrade_bytes(target))
        begin = b""
        while (head := begin.find(b"\r\n\r\n") + 4) < 4 or len(begin) < head + 4:
            begin += connection.recv(65536)
        assert begin.startswith(b"HTTP/1.1 101")
        assert begin[head] == 0x81
        assert begin[head + 1] == 126
        connected = head + 4 + int.from_bytes(begin[head + 2 : head + 4], "big")
        got = _drain(connection, connected + size - len(begin), keep=keep)
    return (begin + got)[connected:]


def _fetch(port: int, size: int) -> None:
    with connect(port) as connection:
        connection.sendall(b"go")
        _drain(connection, size)


def _drain(connection: socket.socket, missing: int, *, keep: bool = False) -> bytes:
    buffer, kept = bytearray(_BUFFER), bytearray()
    while missing > 0:
        got = connection.recv_into(buffer)
        assert got
        missing -= got
        if keep:
            kept += buffer[:got]
    return bytes(kept)


def _watch(connection: Connection, url: tuple[int, str]) -> None:
    """Follow the other session; when asked, tell the delays (ms) since the last time."""
    port, target = url
    delays: list[float] = []
    with WebSocket(f"ws://127.0.0.1:{port}{target}") as ws:
        connection.send("connected")
        while True:
            _, payload = ws.frame()
            now = time.perf_counter_ns()
            _, found, rest = payload.partition(b'"text":"due ')
            if found:
                delays.append((now - int(rest[: rest.index(b'"')])) / 1e6)
            if connection.poll():
                connection.recv()
                connection.send(delays)
                delays = []
