"""What the Trio servers share: commands from stdin, and the clock."""

import json
import os
from collections.abc import Awaitable, Callable, Sequence

import trio

from bench.peers.events import Command, command

Publish = Callable[[int], Awaitable[object]]  # events at once, to all clients of one session


async def obey(
    doors: Sequence[tuple[int, str]], publish: Publish, follow: Callable[[], Sequence[Publish]], replay: Publish
) -> None:
    """Say where the server listens and carry out commands until stdin ends. `follow` gives what publishes in each session."""
    print(json.dumps(doors), flush=True)
    async with trio.lowlevel.FdStream(os.dup(0)) as stdin:
        while data := await stdin.receive_some():  # a command is written at once, and the next one after `done`
            asked = command(bytes(data).decode())
            if asked.name == "publish":
                await _paced(publish, 0.0, asked)
            elif asked.name == "each":
                async with trio.open_nursery() as nursery:
                    for at, each in enumerate(everyone := follow()):
                        nursery.start_soon(_paced, each, at / len(everyone), asked)
            else:
                await replay(asked.events)
            print("done", flush=True)


async def _paced(publish: Publish, phase: float, asked: Command) -> None:
    began = trio.current_time() + phase * asked.pause
    for at in range(asked.times):
        await trio.sleep_until(began + at * asked.pause)
        await publish(asked.events)
