"""One event to many clients, and many sessions with one client each: footlight beside the servers that a user would pick."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple

from bench.report import Figure, Table, percentile
from bench.running import LOAD_CORE, pinned
from bench.servers import NO_RIVALS, Peer, footlight, open_peer, peers

_SESSIONS = 50
_RATE = 60  # events a second of each session
_OURS, _NAIVE = "footlight", "naive trio-websocket"


class Load(NamedTuple):
    """What clients are sent, and what is wanted of it: at most this share of a peer's CPU."""

    title: str
    clients: int
    at_once: int
    pause: float  # s
    targets: dict[str, float]


LOADS = (
    Load("paced, 10 clients", 10, 1, 0.01, {"websockets": 1.1}),
    Load("paced, 100 clients", 100, 1, 0.02, {"websockets": 0.65, _NAIVE: 0.2}),
    Load("burst of 32, 100 clients", 100, 32, 0.2, {"the best peer": 0.1}),
)


def measure(quick: bool) -> list[Table]:
    """All servers in turn, round after round, each alone on its core."""
    rounds, seconds = (2, 0.4) if quick else (5, 2.0)
    with pinned(LOAD_CORE), ExitStack() as stack:
        commands = {_OURS: footlight(), **peers()}
        servers = {name: stack.enter_context(open_peer(command)) for name, command in commands.items()}
        tables = [_fanout(load, servers, rounds, seconds) for load in LOADS]
    with pinned(LOAD_CORE), ExitStack() as stack:
        commands[_OURS] = footlight(_SESSIONS, "live")
        servers = {name: stack.enter_context(open_peer(command)) for name, command in commands.items()}
        tables.append(_sessions(servers, rounds, seconds))
    return tables


def _fanout(load: Load, servers: dict[str, Peer], rounds: int, seconds: float) -> Table:
    times = max(2, round(seconds / load.pause))
    command, frames = f"publish {load.at_once} {times} {load.pause}", load.at_once * times
    costs: dict[str, list[float]] = {name: [] for name in servers}
    own: list[float] = []
    for server in servers.values():  # what a server sets up for its first event
        server.run("publish 1 1 0", load.clients, 1)
    for _ in range(rounds):
        for name, server in servers.items():
            cpu, taken = server.run(command, load.clients, frames)
            costs[name].append(cpu / taken.frames * 1e6)
            own.append(taken.own_share * 100)
    figures = [Figure(f"{name}: CPU of a delivered message", values, "us") for name, values in costs.items()]
    figures += ratios(costs, load.targets)
    figures.append(Figure("share of its core that the load used, at most", [max(own)], "%"))
    how = (
        f"{load.at_once} event{'s' if load.at_once > 1 else ''} of 500 bytes of JSON every {load.pause * 1e3:g} ms, {frames} a round, to {load.clients} "
        "clients. footlight journals each before it sends it, the peers keep none. The peers encode with msgspec, on asyncio's own loop."
    )
    return Table(f"Fan-out: {load.title}", how, figures)


def ratios(costs: dict[str, list[float]], targets: dict[str, float]) -> list[Figure]:
    """Ours to each of the others, and to the cheapest that a user would pick, round by round."""
    others = {name: values for name, values in costs.items() if name != _OURS}
    if choice := [values for name, values in others.items() if name not in NO_RIVALS]:
        others["the best peer"] = [min(each) for each in zip(*choice, strict=True)]
    return [
        Figure(f"{_OURS} / {name}", _quotients(costs[_OURS], values), "x", at_most=targets.get(name))
        for name, values in others.items()
    ]


def _quotients(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    return [one / other for one, other in zip(ours, theirs, strict=True)]


def _sessions(servers: dict[str, Peer], rounds: int, seconds: float) -> Table:
    times = round(seconds * _RATE)
    shares: dict[str, list[float]] = {name: [] for name in servers}
    usual: dict[str, list[float]] = {name: [] for name in servers}
    worst: dict[str, list[float]] = {name: [] for name in servers}
    own: list[float] = []
    for _ in range(rounds):
        for name, server in servers.items():
            cpu, taken = server.run(f"each {times} {1 / _RATE:.6f}", _SESSIONS, times)
            shares[name].append(cpu / taken.seconds * 100)
            usual[name].append(percentile(taken.delays, 0.5))
            worst[name].append(percentile(taken.delays, 0.99))
            own.append(taken.own_share * 100)
    figures = []
    for name in servers:
        target = 0.2 if name == _OURS else None
        figures += [
            Figure(f"{name}: share of a core", shares[name], "%"),
            Figure(f"{name}: publish to client, p50", usual[name], "ms", at_most=target),
            Figure(f"{name}: publish to client, p99", worst[name], "ms"),
        ]
    figures += ratios(shares, {})
    figures.append(Figure("share of its core that the load used, at most", [max(own)], "%"))
    how = (
        f"{_SESSIONS} sessions, one client each, {_RATE} live events of 500 bytes a second and session; a peer's sessions are its clients, "
        "each with a task of its own. The delay is from the stamp within the event to its being read by the load."
    )
    return Table(f"{_SESSIONS} sessions x 1 client x {_RATE}/s", how, figures)
