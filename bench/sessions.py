"""Opening and stopping sessions over HTTP, as a client does it."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple

from bench.report import Figure, Table, percentile
from bench.running import LOAD_CORE, cpu_seconds, pinned, serving
from bench.wire import Http, WebSocket


class Times(NamedTuple):
    """One session's, in ms."""

    created: float
    ready: float
    stopped: float


def measure(quick: bool) -> Table:
    """One session after the other: without a client, with one, and with one after the turn is over."""
    rounds, count = (3, 12) if quick else (5, 50)
    with serving() as served, pinned(LOAD_CORE), Http(served.port) as http:
        _one(http, "warm-up", client=True, after_turn=True)
        alone, followed, idle, used = [], [], [], []
        for at in range(rounds):
            before = cpu_seconds(served.pid)
            alone.append([_one(http, f"alone-{at}-{each}") for each in range(count)])
            used.append((cpu_seconds(served.pid) - before) / count * 1e3)
            followed.append([_one(http, f"followed-{at}-{each}", client=True) for each in range(count)])
            idle.append([_one(http, f"idle-{at}-{each}", client=True, after_turn=True) for each in range(count // 5)])
    opened = [first + second for first, second in zip(alone, followed, strict=True)]
    figures = [
        *_figures("POST answered", opened, "created", 5),
        *_figures("URL ready", opened, "ready", 20),
        *_figures("DELETE answered, in the turn, no client", alone, "stopped", 30),
        *_figures("DELETE answered, in the turn, one client", followed, "stopped", 30),
        *_figures("DELETE answered, after the turn, one client", idle, "stopped", 30),
        Figure("CPU of one session, opened and stopped in its turn, no client", used, "ms"),
    ]
    how = (
        f"{rounds} rounds of {count} sessions of each kind ({count // 5} after their turn), one after the other over one kept connection to a "
        "`footlight serve` with the scripted model. `URL ready` is from the POST to the answer of `GET ?wait`; the first turn "
        "begins at once, on the same core."
    )
    return Table("Sessions: open and stop", how, figures)


def _figures(what: str, rounds: Sequence[Sequence[Times]], name: str, at_most: float) -> list[Figure]:
    """The usual and the worst of each round; only the usual has a target."""
    values = [[getattr(times, name) for times in each] for each in rounds]
    return [
        Figure(f"{what}: p50", [percentile(each, 0.5) for each in values], "ms", at_most=at_most),
        Figure(f"{what}: p99", [percentile(each, 0.99) for each in values], "ms"),
    ]


def _one(http: Http, session_id: str, *, client: bool = False, after_turn: bool = False) -> Times:
    """Open a session, perhaps follow it, and stop it."""
    place = f"/api/sessions/{session_id}"
    asked = time.perf_counter()
    assert http.ask("POST", "/api/chat", {"message": "A menu", "session_id": session_id}).status == 201
    created = time.perf_counter()
    url = http.ask("GET", f"{place}?wait=60").json()["websocket_url"]
    ready = time.perf_counter()
    with ExitStack() as stack:
        ws = stack.enter_context(WebSocket(url)) if client else None
        if ws and after_turn:
            ws.until(b"ready_for_input")
        stopping = time.perf_counter()
        http.send("DELETE", place)
        if ws:
            ws.follow()
        answer = http.receive()
        stopped = time.perf_counter()
    assert answer.json()["status"] == "stopped"
    return Times((created - asked) * 1e3, (ready - asked) * 1e3, (stopped - stopping) * 1e3)
