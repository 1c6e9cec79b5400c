"""Windows, on real sockets: over in their time, sooner where enough has come, never with nothing to read."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from daemon.agent import windows as module
from daemon.agent.windows import Windows

LONG = 3600.0  # s: a window that no test waits for
ENOUGH = b"x" * 320
Pair = tuple[trio.socket.SocketType, socket.socket]


async def connected() -> Pair:
    """A connection of ours, and its other end."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = trio.socket.socket()
        await ours.connect(server.getsockname())
        return ours, server.accept()[0]


@asynccontextmanager
async def opened(length: float, count: int = 1) -> AsyncIterator[tuple[Windows, list[Pair]]]:
    windows, pairs = Windows(length), [await connected() for _ in range(count)]
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(windows.run)
            yield windows, pairs
            nursery.cancel_scope.cancel()
    for ours, theirs in pairs:
        ours.close()
        theirs.close()


def lowat(connection: trio.socket.SocketType) -> int:
    return connection.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT)


async def test_each_window_is_over_in_its_time_whenever_it_began():
    took = []

    async def one(windows: Windows, pair: Pair, after: float) -> None:
        await trio.sleep(after)
        pair[1].send(b"x")
        began = trio.current_time()
        await windows.gather(pair[0])
        took.append(trio.current_time() - began)
        assert lowat(pair[0]) == 1

    async with opened(0.4, 8) as (windows, pairs), trio.open_nursery() as nursery:
        for number, pair in enumerate(pairs):
            nursery.start_soon(one, windows, pair, number * 0.03)
    assert len(took) == 8
    assert min(took) >= 0.3
    assert max(took) < 0.4 + 2  # on a machine that is busy


async def test_window_ends_at_once_where_enough_has_come():
    async with opened(LONG) as (windows, [(ours, theirs)]):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(windows.gather, ours)
            await trio.testing.wait_all_tasks_blocked()
            theirs.send(ENOUGH)
        theirs.send(ENOUGH)
        await windows.gather(ours)  # it is there already
        assert lowat(ours) == 1


async def test_whatever_comes_after_a_window_is_seen_at_once():
    async with opened(0.01) as (windows, [(ours, theirs)]), trio.open_nursery() as nursery:
        nursery.start_soon(windows.gather, ours)
        while lowat(ours) == 1:
            await trio.lowlevel.checkpoint()
        while lowat(ours) != 1:  # until the window is over
            await trio.sleep(0.01)
        assert nursery.child_tasks  # nothing is there
        assert not windows._ends  # and nobody looks at it again
        theirs.send(b"x")


async def test_window_that_is_cancelled_leaves_the_socket_as_it_was():
    async with opened(LONG) as (windows, [(ours, _)]):
        with trio.move_on_after(0.05) as scope:
            await windows.gather(ours)
        assert scope.cancelled_caught
        assert lowat(ours) == 1
        assert not windows._ends


@pytest.mark.parametrize("when", ["before", "meanwhile"])
async def test_window_of_a_socket_that_is_closed_ends(when):
    async with opened(0.1 if when == "before" else LONG) as (windows, [(ours, _)]), trio.open_nursery() as nursery:
        if when == "before":
            ours.close()
        nursery.start_soon(windows.gather, ours)
        await trio.testing.wait_all_tasks_blocked()
        ours.close()
    assert not windows._ends


async def test_nothing_gathers_where_the_kernel_cannot_wake_for_less(monkeypatch):
    monkeypatch.setattr(module, "_BY_KERNEL", False)
    async with opened(LONG) as (windows, [(ours, _)]):
        await windows.gather(ours)
        assert lowat(ours) == 1
