"""Writing to all who keep up: at once, in one write after a burst, and never to who cannot take it."""

import re
import resource
import socket
from contextlib import nullcontext, suppress

import hypothesis
import msgspec
import pytest
import trio
import wsproto.events
from hypothesis import strategies as st

from daemon.clients.fanout import _GATHER, Fanout
from daemon.errors import JournalFull
from daemon.journal.cursor import Cursor, Place
from daemon.journal.journal import Journal, open_journal
from daemon.journal.ring import MOST_BYTES
from tests.clients.room import RawClient, handshake, open_listening_room
from tests.journal.history import lowered


@pytest.fixture
def journal(tmp_path):
    with open_journal("s1", tmp_path / "journal", limit=1 << 24) as (opened, _):
        yield opened


_OFFSET = re.compile(rb'"offset":(\d+)\}')  # how an event ends


def note(journal, text="x"):
    return journal.append("agent_error", error=text, error_type="test", retryable=False)


class Taker:
    """A client's socket that takes so many bytes."""

    def __init__(self, room=1 << 30):
        self.room = room
        self.writes = []
        self.place = None

    def write(self, data):
        taken = min(len(data), self.room)
        self.room -= taken
        self.writes.append(data[:taken])
        return taken

    def fall(self, place):
        self.place = place


async def test_event_by_itself_is_written_to_everybody_within_append(journal, autojump_clock):
    fanout = Fanout(journal)
    async with trio.open_nursery() as nursery:
        fanout.start_soon = nursery.start_soon
        one, other = Taker(), Taker()
        fanout.join(one)
        fanout.join(other)
        await trio.sleep(1)
        note(journal)
        assert one.writes == other.writes == [journal.read(0).data]
        assert journal.delivered == 1
        await trio.sleep(1)
        journal.publish("client_joined", client_id=1, role="watch", connected_clients=1)
        assert len(one.writes) == 2
        nursery.cancel_scope.cancel()


async def test_burst_is_one_write_of_the_first_and_one_of_the_rest(journal, autojump_clock):
    fanout = Fanout(journal)
    async with trio.open_nursery() as nursery:
        fanout.start_soon = nursery.start_soon
        taker = Taker()
        fanout.join(taker)
        await trio.sleep(1)
        for _ in range(32):
            note(journal)
        await trio.sleep(_GATHER * 0.99)
        assert len(taker.writes) == 1
        await trio.sleep(_GATHER * 0.02)
        assert len(taker.writes) == 2
        assert b"".join(taker.writes) == journal.read(0).data
        await trio.sleep(1)
        assert len(taker.writes) == 2
        assert not nursery.child_tasks  # the flush is no task of a quiet session
        nursery.cancel_scope.cancel()


async def test_what_is_shown_together_is_one_write_at_once(journal, autojump_clock):
    fanout = Fanout(journal)
    async with trio.open_nursery() as nursery:
        fanout.start_soon = nursery.start_soon
        taker = Taker()
        fanout.join(taker)
        await trio.sleep(1)
        with suppress(ZeroDivisionError), journal.together():
            for _ in range(3):
                note(journal)
            assert not taker.writes
            raise ZeroDivisionError  # what was shown was shown
        assert taker.writes == [journal.read(0).data]
        with journal.together():
            pass
        assert len(taker.writes) == 1
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("holding", [nullcontext, Journal.together], ids=["each", "together"])
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("burst", [(5000, 1), (300, 1000), (20, MOST_BYTES)], ids=str)
async def test_burst_that_is_more_than_the_ring_holds_is_lost_to_nobody_who_keeps_up(
    journal, autojump_clock, burst, late, holding
):
    count, size = burst
    fanout, cursor = Fanout(journal), Cursor(journal, 0)
    async with trio.open_nursery() as nursery:
        fanout.start_soon = nursery.start_soon
        taker = Taker()
        fanout.join(taker)
        if late:
            cursor.read_nowait()  # it stands on the ring, and reads no more
        await trio.sleep(1)
        with holding(journal):
            for number in range(count):
                journal.publish("claude_text_delta", turn=1, block=0, position=number, text="x" * size)
        await trio.sleep(1)
        assert taker.place is None
        found = re.findall(rb'"position":(\d+)', b"".join(taker.writes))
        assert list(map(int, found)) == list(range(count))
        nursery.cancel_scope.cancel()


async def test_nobody_is_sent_what_is_not_in_the_file_yet(journal):
    class Reader(Taker):
        def write(self, data):
            (file,) = journal.folder.glob("*.frames")
            assert data in file.read_bytes()
            return super().write(data)

    fanout, reader = Fanout(journal), Reader()
    fanout.join(reader)
    note(journal)
    with journal.together():
        for _ in range(20):
            note(journal, "x" * (MOST_BYTES // 4))  # more than the ring holds: some must leave before the end
        assert len(reader.writes) > 1
    assert b"".join(reader.writes) == b"".join(journal.read(at).data for at in _stops(journal))


async def test_what_has_left_in_a_block_is_not_taken_back_with_the_rest(journal):
    fanout, taker = Fanout(journal), Taker()
    fanout.join(taker)
    block = journal.together()
    block.__enter__()
    for _ in range(6):
        note(journal, "x" * (MOST_BYTES // 4))  # more than the ring holds
    (file,) = journal.folder.glob("*.frames")
    with lowered(resource.RLIMIT_FSIZE, file.stat().st_size), pytest.raises(JournalFull):
        block.__exit__(None, None, None)
    assert 0 < journal.delivered == journal.offset == journal.ring.sequence < 6
    note(journal)
    fanout.flush()
    assert b"".join(taker.writes) == b"".join(journal.read(at).data for at in _stops(journal))


def _stops(journal):
    at = 0
    while (chunk := journal.read(at)) is not None:
        yield at
        at = chunk.offset


@pytest.mark.parametrize("room", [0, 10])
async def test_client_that_does_not_take_all_falls_out_and_the_others_go_on(journal, room):
    fanout = Fanout(journal)
    slow, fast = Taker(room), Taker()
    fanout.join(slow)
    fanout.join(fast)
    before = Place(journal.ring.sequence, journal.offset)
    note(journal)
    # What was begun is finished by its stream; what was not is still to be read.
    assert slow.place == (Place(journal.ring.sequence, 1) if room else before)
    note(journal)
    assert b"".join(fast.writes) == journal.read(0).data
    assert len(b"".join(slow.writes)) == room


@pytest.mark.parametrize("others", [0, 1])
async def test_who_falls_out_reads_what_it_could_not_take_though_the_ring_keeps_nothing_for_the_others(journal, others):
    fanout, cursor = Fanout(journal), Cursor(journal, 0)
    slow = Taker(0)
    slow.fall = cursor.resume
    for taker in (slow, *(Taker() for _ in range(others))):
        fanout.join(taker)
    for number in range(3):
        journal.publish("client_joined", client_id=number, role="watch", connected_clients=1)
        note(journal)
    assert len(journal.ring) == 6
    chunk = cursor.read_nowait()
    assert (chunk.offset, chunk.data.count(b"client_joined")) == (3, 3)
    cursor.rest()
    note(journal)
    assert len(journal.ring) == 0


async def test_ring_keeps_nothing_that_everybody_was_written(journal, autojump_clock):
    fanout = Fanout(journal)
    async with trio.open_nursery() as nursery:
        fanout.start_soon = nursery.start_soon
        fanout.join(Taker())
        await trio.sleep(1)
        held = []
        for _ in range(3):
            note(journal)
            held.append(len(journal.ring))
        assert held == [0, 1, 2]  # the first is written at once, the others wait for the flush
        await trio.sleep(1)
        assert len(journal.ring) == 0


async def test_who_joins_does_not_get_what_was_waiting_for_the_others(journal, autojump_clock):
    fanout = Fanout(journal)
    async with trio.open_nursery() as nursery:
        fanout.start_soon = nursery.start_soon
        early, late = Taker(), Taker()
        fanout.join(early)
        await trio.sleep(1)
        note(journal)
        note(journal)  # waits for the flush
        fanout.join(late)
        assert b"".join(early.writes) == journal.read(0).data
        await trio.sleep(1)
        note(journal)
        assert late.writes == [journal.read(2).data]
        assert b"".join(early.writes) == journal.read(0).data
        nursery.cancel_scope.cancel()


async def test_end_lets_everybody_go_after_the_last_event(journal, autojump_clock):
    fanout = Fanout(journal)
    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            fanout.start_soon = nursery.start_soon
            taker = Taker()
            fanout.join(taker)
            for _ in range(3):
                note(journal)
            journal.end()
        assert taker.place == Place(journal.ring.sequence, 3)
        assert b"".join(taker.writes) == journal.read(0).data


async def test_client_that_has_left_is_written_to_no_more(journal):
    fanout, taker = Fanout(journal), Taker()
    fanout.join(taker)
    fanout.leave(taker)
    fanout.leave(taker)
    note(journal)
    assert (taker.writes, len(journal.ring)) == ([], 0)


# --- over real sockets


class Reader:
    """A client that reads when it is told to, through a receive buffer as small as it gets."""

    def __init__(self, start):
        self.start = start
        self.offsets = []

    async def open(self, port, path):
        raw = trio.socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await raw.connect(("127.0.0.1", port))
        self.client = RawClient(trio.SocketStream(raw))
        await self.client.open(path)
        await self.client.until(wsproto.events.AcceptConnection)
        self._text = ""

    async def read_until(self, offset):
        while (self.offsets[-1] if self.offsets else self.start) < offset:
            event = await self.client.until(wsproto.events.TextMessage)
            self._text += event.data
            if event.message_finished:
                said = msgspec.json.decode(self._text)
                self._text = ""
                if "offset" in said:
                    self.offsets.append(said["offset"])

    async def close(self):
        await trio.aclose_forcefully(self.client.stream)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 40), st.sampled_from([10, 500, 20_000])),
        st.tuples(st.just("join"), st.floats(0, 1), st.just(0)),
        st.tuples(st.just("leave"), st.integers(0, 4), st.just(0)),
        st.tuples(st.just("read"), st.integers(0, 4), st.floats(0, 1)),
        st.tuples(st.just("publish"), st.integers(1, 5), st.just(0)),
        st.tuples(st.just("wait"), st.sampled_from([0.0, 0.005]), st.just(0)),
    ),
    max_size=25,
)


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(steps=STEPS)
def test_every_client_gets_every_offset_once_whatever_the_mix(tmp_path_factory, steps):
    async def play():
        with trio.fail_after(30):
            async with open_listening_room(tmp_path_factory.mktemp("room")) as (room, url):
                port, readers, gone = int(url.rpartition(":")[2]), [], []
                for kind, number, extra in [("join", 0.0, 0), *steps]:
                    match kind:
                        case "append":
                            for _ in range(number):
                                note(room.journal, "x" * extra)
                        case "publish":
                            for _ in range(number):
                                room.journal.publish("client_left", client_id=0, role="watch", connected_clients=0)
                        case "join" if len(readers) < 5:
                            reader = Reader(int(number * room.journal.offset))
                            await reader.open(port, room.path(offset=reader.start))
                            readers.append(reader)
                        case "leave" if number < len(readers):
                            await readers[number].close()
                            gone.append(readers.pop(number))
                        case "read" if number < len(readers):
                            await readers[number].read_until(int(extra * room.journal.offset))
                        case "wait":
                            await trio.sleep(number)
                async with trio.open_nursery() as nursery:
                    for reader in readers:
                        nursery.start_soon(reader.read_until, room.journal.offset)
                for reader in [*readers, *gone]:
                    expected = range(reader.start + 1, reader.start + 1 + len(reader.offsets))
                    assert reader.offsets == list(expected)
                for reader in readers:
                    assert (reader.offsets[-1] if reader.offsets else reader.start) == room.journal.offset
                    await reader.close()
                await room.hub.drain()

    trio.run(play)


async def offsets_on(stream, last):
    """The offsets of all events that come, up to the last one."""
    found, rest = [], b""
    while not found or found[-1] < last:
        rest += await stream.receive_some(1 << 20)
        end = 0
        for match in _OFFSET.finditer(rest):
            found.append(int(match[1]))
            end = match.end()
        rest = rest[end:][-40:]
    return found


@pytest.mark.slow
async def test_one_stalled_client_in_ten_of_five_hundred_delays_nobody_and_is_cut(tmp_path):
    events, size = 400, 2_500  # 1 MB: more than the kernel holds for who does not read
    with trio.fail_after(60):
        async with open_listening_room(tmp_path, max_clients=600, send_deadline=1.5) as (room, url):
            port, stalled, reading = int(url.rpartition(":")[2]), [], []
            for _ in range(450):
                reading.append(await trio.open_tcp_stream("127.0.0.1", port))
                await reading[-1].send_all(handshake(room.path()))
            while len(room.hub) < 450:
                await trio.lowlevel.checkpoint()
            for _ in range(50):  # after the others: told of so many, they would stall before it matters
                stalled.append(Reader(0))
                await stalled[-1].open(port, room.path())
            done = []

            async def follow(stream):
                done.append(await offsets_on(stream, events))

            async with trio.open_nursery() as nursery:
                for stream in reading:
                    nursery.start_soon(follow, stream)
                for _ in range(events):
                    note(room.journal, "x" * size)
                    await trio.lowlevel.checkpoint()
            assert all(offsets == list(range(1, events + 1)) for offsets in done)
            assert len(done) == 450
            while len(room.hub) > 450:  # those that took nothing for the send deadline
                await trio.sleep(0.01)
            for each in [*reading, *(reader.client.stream for reader in stalled)]:
                await trio.aclose_forcefully(each)
            await room.hub.drain()
