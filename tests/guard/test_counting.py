"""The counters see what they are to count."""

import os
import socket

import msgspec
import trio

from tests.guard.counting import counting


async def test_what_runs_in_the_block_is_counted(tmp_path):
    ours, theirs = socket.socketpair()
    text, words = "text", ["x", "y"]
    with ours, theirs, (tmp_path / "file").open("wb") as file:
        with counting() as counts:
            ours.send(b"x")
            os.write(ours.fileno(), b"x")
            os.pwrite(file.fileno(), b"x", 0)
            msgspec.json.encode({})
            msgspec.json.Encoder().encode({})
            text.encode()
            b"".join([b"x", b"y"])
            ", ".join(words)
        os.write(ours.fileno(), b"not in the block")
    assert (counts.socket_writes, counts.file_writes, counts.encodes, counts.joins, counts.steps) == (2, 1, 2, 1, 0)


async def test_steps_of_other_tasks_are_counted():
    async def two_steps() -> None:
        await trio.lowlevel.checkpoint()

    with counting() as counts:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(two_steps)
            await trio.lowlevel.checkpoint()
    assert counts.steps == 2
