"""What an event costs as there are more of them at once, more clients, more sessions: a bend in the curve is seen here."""

from bench.report import Figure, Table
from bench.running import LOAD_CORE, pinned
from bench.servers import Peer, footlight, open_peer

_SIZES = (1, 10, 100, 1000)
_RATE = 1000  # messages a second in all, at most
_SLOWEST = 1 / 60  # s between two events of a small size
_MOST = 600  # events a round: it must be over before the load, which answers no ping, would be taken for gone


def measure(quick: bool) -> Table:
    """Each axis on its own, the others small."""
    rounds, messages, sizes = (2, 100, _SIZES[:-1]) if quick else (3, 3000, _SIZES)
    figures: list[Figure] = []
    with pinned(LOAD_CORE), open_peer(footlight()) as server:
        events = {size: _rounds(server, rounds, 10, size, max(2, messages // size // 10)) for size in sizes}
        clients = {size: _rounds(server, rounds, size, 1, max(4, min(_MOST, messages // size))) for size in sizes}
    sessions = {size: _sessions(size, rounds, max(4, min(_MOST, messages // size))) for size in sizes}
    for axis, costs in (("events at once, 10 clients", events), ("clients", clients), ("sessions", sessions)):
        figures += [Figure(f"{size} {axis}: CPU of a delivered message", costs[size], "us") for size in sizes]
        last = sizes[-1]
        pairs = zip(costs[last], costs[10], strict=True)
        figures.append(Figure(f"{axis}: {last} / 10", [many / few for many, few in pairs], "x"))
    how = (
        f"footlight alone, events of 500 bytes, at most {_RATE} messages a second: many events at once to 10 clients, one at a time "
        "to many clients (journaled), and one at a time in each of many sessions with a client each (live)."
    )
    return Table("Growth", how, figures)


def _rounds(server: Peer, rounds: int, clients: int, at_once: int, times: int) -> list[float]:
    pause = max(_SLOWEST, at_once * clients / _RATE / 10)
    command, frames = f"publish {at_once} {times} {pause:.6f}", at_once * times
    return [_cost(server, command, clients, frames) for _ in range(rounds)]


def _sessions(count: int, rounds: int, times: int) -> list[float]:
    pause = max(_SLOWEST, count / _RATE)
    with open_peer(footlight(count, "live")) as server:
        server.run(f"each 1 {pause:.6f}", count, 1)
        return [_cost(server, f"each {times} {pause:.6f}", count, times) for _ in range(rounds)]


def _cost(server: Peer, command: str, clients: int, frames: int) -> float:
    cpu, taken = server.run(command, clients, frames)
    return cpu / taken.frames * 1e6
