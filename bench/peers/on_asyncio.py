"""What the asyncio peers share: commands from stdin, and the clock."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Collection
from itertools import count
from typing import Any

from bench.peers.events import Command, command, event, events

Send = Callable[[Any, bytes], Awaitable[object]]  # to one client, waiting while it takes no more
Broadcast = Callable[[bytes], Awaitable[object]]  # to all clients


async def obey(port: int, clients: Collection[Any], broadcast: Broadcast, send: Send) -> None:
    """Say where the peer listens and carry out commands until stdin ends."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print(json.dumps([[port, "/"]]), flush=True)
    while line := await reader.readline():
        asked = command(line.decode())
        if asked.name == "publish":
            await _publish(asked, broadcast)
        elif asked.name == "each":
            everyone = list(clients)
            await asyncio.gather(
                *(_follow(client, at / len(everyone), asked, send) for at, client in enumerate(everyone))
            )
        else:
            ready = list(events(asked.events))
            await asyncio.gather(*(_replay(client, ready, send) for client in list(clients)))
        print("done", flush=True)


async def _publish(asked: Command, broadcast: Broadcast) -> None:
    began, offsets = asyncio.get_running_loop().time(), count(1)
    for at in range(asked.times):
        await _sleep_until(began + at * asked.pause)
        for _ in range(asked.events):
            await broadcast(event(next(offsets)))


async def _follow(client: Any, phase: float, asked: Command, send: Send) -> None:
    began = asyncio.get_running_loop().time() + phase * asked.pause
    for at in range(asked.times):
        await _sleep_until(began + at * asked.pause)
        await send(client, event(at + 1))


async def _replay(client: Any, ready: list[bytes], send: Send) -> None:
    for each in ready:
        await send(client, each)


async def _sleep_until(when: float) -> None:
    await asyncio.sleep(max(0.0, when - asyncio.get_running_loop().time()))
