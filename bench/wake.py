"""What the CPU of a paced event goes to: the loop that wakes up for it, the journal, the clients."""

import asyncio
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import trio

from bench.report import Figure, Table
from bench.running import LOAD_CORE, SERVER_CORE, answer, other_process, pinned
from bench.servers import footlight, open_peer, peers

_PAUSE = 0.01  # s
_CLIENTS = 10


def measure(quick: bool) -> Table:
    """Each part on the server's core, in turn, round after round."""
    rounds, times = (3, 50) if quick else (5, 200)
    loops: dict[str, Callable[[Connection, int], None]] = {"Trio": _trio, "asyncio": _asyncio, "no loop": _sleep}
    found: dict[str, list[float]] = {}
    servers = {"footlight": footlight()}
    if "websockets" in peers():
        servers["websockets"] = peers()["websockets"]
    for _ in range(rounds):
        for name, body in loops.items():
            with other_process(body, times, core=SERVER_CORE) as (process, _):
                found.setdefault(f"{name}: a wake-up by the clock", []).append(answer(process) / times * 1e6)
        for name, command in servers.items():
            with pinned(LOAD_CORE), open_peer(command) as server:
                for clients in (0, _CLIENTS):
                    server.run("publish 1 1 0", clients, 1)
                    cpu, _ = server.run(f"publish 1 {times} {_PAUSE}", clients, times)
                    found.setdefault(f"{name}: an event, {clients} clients", []).append(cpu / times * 1e6)
    how = (
        f"{times} times a round, one each {_PAUSE * 1e3:g} ms, so that each begins on an idle core. An event includes the wake-up; without clients, "
        "footlight still journals it."
    )
    return Table("What a paced event goes to", how, [Figure(name, values, "us") for name, values in found.items()])


def _trio(connection: Connection, times: int) -> None:
    async def main() -> None:
        cpu, began = time.process_time(), trio.current_time()
        for at in range(times):
            await trio.sleep_until(began + at * _PAUSE)
        connection.send(time.process_time() - cpu)

    trio.run(main)


def _asyncio(connection: Connection, times: int) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        cpu, began = time.process_time(), loop.time()
        for at in range(times):
            await asyncio.sleep(max(0.0, began + at * _PAUSE - loop.time()))
        connection.send(time.process_time() - cpu)

    asyncio.run(main())


def _sleep(connection: Connection, times: int) -> None:
    cpu = time.process_time()
    for _ in range(times):
        time.sleep(_PAUSE)
    connection.send(time.process_time() - cpu)
