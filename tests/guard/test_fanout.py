"""What one event may cost on its way to many clients, in writes, encodes, task steps and bytes. A regression fails here.

Whoever makes the path cheaper makes the bounds tighter.
"""

import gc
import socket
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import pytest
import trio

from bench.load import Frames
from daemon.clients.fanout import _GATHER
from tests.clients.room import Room, handshake, open_listening_room
from tests.guard.counting import Counts, counting

CLIENTS = 10
BURST = 32

# ---- The bounds, each for a client and event unless it says otherwise. -------------------------------------------------
WRITES = 1  # of an isolated event: one write to each client
STEPS = 0  # of tasks, for an isolated event
BURST_WRITES = 2  # to each client, for all the events that come at once: the first, and the rest
BURST_STEPS = 0.3  # of tasks, for such a burst: those of one flush, whoever waits for it
JOINS = 0.1  # of bytes, each of which copies what it joins: one for all clients
ENCODES = 1  # for an event, however many clients there are
FILE_WRITES = 2  # for a journaled event: its frame and its record
BLOCK_JOINS = 3  # of a block of events: for its frames, its records, and the clients
TASKS = 2  # of a client that keeps up: its connection's own, and the library's
COPIES = 2.0  # of a large event's bytes in memory at once, however many clients wait for it
# ------------------------------------------------------------------------------------------------------------------------


class Crowd:
    """Clients in plain sockets, read by the test's own task."""

    def __init__(self, sockets: Sequence[socket.socket]) -> None:
        self._clients = [(each, Frames()) for each in sockets]

    async def take(self, events: int) -> None:
        """Read until each has that many events more."""
        for client, frames in self._clients:
            goal = frames.count + events
            while frames.count < goal:
                frames.feed(await _read(client))

    async def settle(self, room: Room) -> None:
        """Read until all are told that all are there."""
        while len(room.hub) < len(self._clients):
            await trio.testing.wait_all_tasks_blocked()
        room.journal.append("agent_error", error="all are there", error_type="test", retryable=False)
        for client, _ in self._clients:
            seen = b""
            while b"all are there" not in seen or not seen.endswith(b"}"):
                seen += await _read(client)
        await trio.testing.wait_all_tasks_blocked()


async def _read(client: socket.socket) -> bytes:
    await trio.lowlevel.wait_readable(client)
    data = client.recv(1 << 16)
    assert data
    return data


@contextmanager
def crowd(room: Room, url: str) -> Iterator[Crowd]:
    """`CLIENTS` clients that have asked to join."""
    with ExitStack() as stack:
        sockets = []
        for _ in range(CLIENTS):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))))
            client.sendall(handshake(room.path()))
            sockets.append(client)
        yield Crowd(sockets)


async def counted(tmp_path, events, *, live) -> Counts:
    """What that many events at once cost until every client has them, once the first one has been."""
    async with open_listening_room(tmp_path) as (room, url):
        with crowd(room, url) as clients, trio.fail_after(10):
            await clients.settle(room)
            await trio.sleep(2 * _GATHER)  # what comes within that time of another event is not isolated
            with counting() as counts:
                for _ in range(events):
                    say(room, live)
                await clients.take(events)
    return counts


def say(room: Room, live: bool) -> None:
    if live:
        room.journal.publish("claude_text_delta", turn=1, block=0, position=0, text="x" * 300)
    else:
        room.journal.append("claude_text", turn=1, block=0, text="x" * 300)


@pytest.mark.parametrize("live", [False, True], ids=["journaled", "live"])
async def test_an_isolated_event_costs_one_write_a_client(tmp_path, live):
    counts = await counted(tmp_path, 1, live=live)
    assert CLIENTS <= counts.socket_writes <= CLIENTS * WRITES
    assert counts.steps <= CLIENTS * STEPS
    assert counts.joins <= CLIENTS * JOINS
    assert 1 <= counts.encodes <= ENCODES
    assert counts.file_writes == (0 if live else FILE_WRITES)


@pytest.mark.parametrize("live", [False, True], ids=["journaled", "live"])
async def test_events_that_come_together_leave_together(tmp_path, live):
    counts = await counted(tmp_path, BURST, live=live)
    assert CLIENTS <= counts.socket_writes <= CLIENTS * BURST_WRITES
    assert counts.steps <= CLIENTS * BURST_STEPS
    assert counts.joins <= CLIENTS * JOINS
    assert BURST <= counts.encodes <= BURST * ENCODES
    assert counts.file_writes == (0 if live else BURST * FILE_WRITES)


async def test_events_of_one_block_are_written_once_and_sent_once(tmp_path):
    async with open_listening_room(tmp_path) as (room, url):
        with crowd(room, url) as clients, trio.fail_after(10):
            await clients.settle(room)
            await trio.sleep(2 * _GATHER)
            with counting() as counts:
                with room.journal.together():
                    for _ in range(BURST):
                        say(room, live=False)
                await clients.take(BURST)
    assert counts.socket_writes == CLIENTS
    assert counts.file_writes == FILE_WRITES
    assert counts.steps <= CLIENTS * STEPS
    assert counts.joins <= BLOCK_JOINS
    assert counts.encodes == BURST * ENCODES


def tasks() -> int:
    """How many there are."""
    found = [trio.lowlevel.current_root_task()]
    for task in found:
        found += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return len(found)


async def test_a_client_that_keeps_up_has_no_task_that_writes_to_it(tmp_path):
    async with open_listening_room(tmp_path) as (room, url):
        before = tasks()
        with crowd(room, url) as clients, trio.fail_after(10):
            await clients.settle(room)
            assert CLIENTS <= tasks() - before <= CLIENTS * TASKS
            say(room, live=True)
            await clients.take(1)
            assert len(room.journal.ring) == 0  # and nothing is held in memory for any of them


async def test_a_large_event_is_not_copied_for_each_client(tmp_path):
    size = 4 << 20  # more than the sockets take, so that all of them wait for it at once
    async with open_listening_room(tmp_path) as (room, url):
        with crowd(room, url) as clients, trio.fail_after(10):
            await clients.settle(room)
            text = "x" * size
            gc.collect()
            tracemalloc.start()
            try:
                room.journal.append("claude_text", turn=1, block=0, text=text)
                del text
                tracemalloc.reset_peak()
                before, _ = tracemalloc.get_traced_memory()
                await trio.testing.wait_all_tasks_blocked()
                held, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert before >= size
            assert max(held, peak) <= COPIES * size
            await clients.take(1)
