"""Sessions that wait: what each holds in memory, and what they cost while nothing happens."""

import selectors
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.report import Figure, Table
from bench.running import LOAD_CORE, Served, cpu_seconds, pinned, resident_kb, serving
from bench.wire import Http, WebSocket

COUNT = 50
_WARM_UP = 10  # sessions that stay too: by then what all share is loaded
_SCRIPT = 'name = "short"\n[[turn]]\n[[turn.step]]\ntext = "Done."\n'
_NO_CPU = 10.0  # ms in 10 s, one part in a thousand of a core


def measure(quick: bool) -> Table:
    """Sessions after a turn of one word, then with a client each; then the same after the whole scripted turn."""
    rounds = 1 if quick else 3
    window = 10.0 if quick else 24.0  # s; of 24, every client is pinged once in it
    figures = []
    with TemporaryDirectory(prefix="footlight-bench-") as folder:
        short = Path(folder, "short.toml")
        short.write_text(_SCRIPT)
        results = [_idle({"script": short}, window) for _ in range(rounds)]
    bare, followed, quiet, pinged = zip(*results, strict=True)
    figures = [
        Figure("memory of a session, no client", bare, "kB"),
        Figure("memory of a session with one client", followed, "kB", at_most=60),
        Figure(f"CPU of {COUNT} sessions in 10 s, no clients", quiet, "ms", at_most=_NO_CPU),
        Figure(f"CPU of {COUNT} sessions in 10 s, one client each", pinged, "ms", at_most=_NO_CPU),
    ]
    if not quick:
        bare, followed, *_ = _idle({}, 0.0)
        figures += [
            Figure("after the whole built-in turn: memory of a session, no client", [bare], "kB"),
            Figure("after the whole built-in turn: memory of a session with one client", [followed], "kB"),
        ]
    how = (
        f"Growth of the daemon's RSS over {COUNT} sessions whose turn of one word is over, after {_WARM_UP} others; no kernel "
        f"memory. CPU over {window:g} s, shown for 10" + ("." if quick else "; each client is pinged once in them.")
    )
    return Table("Idle sessions", how, figures)


def _idle(settings: dict[str, object], window: float) -> tuple[float, float, float, float]:
    """KB for a session, KB for one with a client, CPU ms in 10 s without and with clients."""
    with serving(**settings) as served, pinned(LOAD_CORE), Http(served.port) as http, ExitStack() as stack:
        for at in range(_WARM_UP):
            _finished(http, f"warm-up-{at}")
        before = resident_kb(served.pid)
        urls = [_finished(http, f"idle-{at}") for at in range(COUNT)]
        bare = resident_kb(served.pid) - before
        quiet = _cpu_ms(served, (), window)
        clients = [stack.enter_context(WebSocket(url)) for url in urls]
        for client in clients:
            client.until(b"ready_for_input")
        followed = resident_kb(served.pid) - before
        pinged = _cpu_ms(served, clients, window)
    return bare / COUNT, followed / COUNT, quiet, pinged


def _finished(http: Http, session_id: str) -> str:
    """Open a session and return its URL when its turn is over."""
    http.ask("POST", "/api/chat", {"message": "A menu", "session_id": session_id})
    url: str = http.ask("GET", f"/api/sessions/{session_id}?wait=60").json()["websocket_url"]
    with WebSocket(url) as ws:
        ws.until(b"ready_for_input")
    return url


def _cpu_ms(served: Served, clients: Sequence[WebSocket], window: float) -> float:
    """The daemon's CPU over the window, as ms in 10 s, while clients answer pings and nothing else happens."""
    if not window:
        return 0.0
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client.socket, selectors.EVENT_READ, client)
        used, end = cpu_seconds(served.pid), time.monotonic() + window
        while (left := end - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                key.data.frame()
        used = cpu_seconds(served.pid) - used
    return used * 1e3 * 10 / window
