"""Frames sent straight from the journal's file: the same bytes, and no descriptor left, whatever ends the sending."""

import errno
import os
from contextlib import suppress

import pytest
import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from daemon.clients import stream as stream_module
from daemon.clients.follow import open_client
from daemon.clients.stream import ClientStream
from daemon.journal import journal as journal_module
from daemon.journal.cursor import Cursor
from daemon.journal.journal import Gap
from daemon.journal.segment import Stored, frames_path
from tests.clients.room import open_listening_room, open_room
from tests.clients.test_stream import both_closed, never_closed, tiny_socket_pair
from tests.journal.history import note, opened
from tests.support import descriptors, events_until, journaled, next_event

SIZE = 4 << 20  # more than any pair of socket buffers takes


@pytest.fixture(autouse=True)
def no_descriptor_left():
    before = descriptors()  # outside of Trio's loop, which has some of its own
    yield
    assert descriptors() == before


@pytest.fixture
def long(tmp_path):
    """A journal with one event that no pair of socket buffers takes, and its frame."""
    with opened(tmp_path / "long") as (journal, _):
        note(journal, "x" * SIZE)
        yield journal, journal.read(0).data


async def all_of(stream):
    got = bytearray()
    with suppress(trio.BrokenResourceError):
        while data := await stream.receive_some(1 << 20):
            got += data
    return bytes(got)


@pytest.fixture
async def pair():
    """A client's stream and its peer, with tiny buffers between them."""
    ours, theirs = await tiny_socket_pair(send_deadline=5)
    yield ours, theirs
    await both_closed(ours, theirs)


async def sent_while(stream, theirs, chunk, act):
    """What the peer gets of a chunk if something happens while its sending waits."""
    got = b""
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:

            async def send():
                await stream.send_frames(chunk, never_closed)
                await stream.send_eof()

            nursery.start_soon(send)
            await wait_all_tasks_blocked()
            act()
            got = await all_of(theirs)
    return got


async def test_the_file_is_sent_as_it_is(long, pair):
    journal, frames = long
    chunk = journal.hold(0)
    assert (chunk.position, chunk.length, chunk.offset) == (0, len(frames), 1)
    assert await sent_while(*pair, chunk, bool) == frames


async def test_sending_goes_on_when_the_file_is_pruned_meanwhile(tmp_path, pair):
    with opened(tmp_path, limit=2 * SIZE) as (journal, _):
        note(journal, "x" * SIZE)
        frames = journal.read(0).data

        def prune():
            while journal.first == 1:
                note(journal, "y" * (SIZE // 2))
            assert not frames_path(journal.folder, 1).exists()

        assert await sent_while(*pair, journal.hold(0), prune) == frames


async def test_sending_goes_on_when_the_journal_begins_another_file_meanwhile(tmp_path, pair):
    with opened(tmp_path, limit=16 * SIZE) as (journal, _):
        note(journal, "x" * SIZE)
        frames = journal.read(0).data

        def rotate():
            while len(journal._segments) == 1:
                note(journal, "y" * SIZE)

        assert await sent_while(*pair, journal.hold(0), rotate) == frames
        assert journal.first == 1


async def test_sending_goes_on_when_the_journal_is_closed_and_its_descriptor_is_used_anew(long, pair):
    journal, frames = long
    others = []

    def close():
        journal.close()
        others.extend(os.open("/dev/zero", os.O_RDONLY) for _ in range(4))

    try:
        assert await sent_while(*pair, journal.hold(0), close) == frames
    finally:
        for fd in others:
            os.close(fd)


async def test_a_file_that_became_shorter_ends_the_connection(long, pair):
    journal, frames = long
    stream, theirs = pair
    short, got = frames_path(journal.folder, 1), b""
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:

            async def send():
                with pytest.raises(trio.BrokenResourceError):
                    await stream.send_frames(journal.hold(0), never_closed)
                with pytest.raises(trio.BrokenResourceError, match="cut short"):
                    await stream.send_all(b"more")

            nursery.start_soon(send)
            await wait_all_tasks_blocked()
            os.truncate(short, SIZE - 5)
            got = await all_of(theirs)
    assert got == frames[: len(got)]
    assert 0 < len(got) <= SIZE - 5
    assert not stream.evicted


async def test_a_cancelled_sending_is_never_followed_by_other_bytes(long, pair):
    journal, frames = long
    stream, theirs = pair
    with trio.fail_after(10):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.send_frames, journal.hold(0), never_closed)
                await wait_all_tasks_blocked()
                scope.cancel()
        for again in (journal.hold(0), b"B"):
            with pytest.raises(trio.BrokenResourceError, match="cut short"):
                await stream.send_frames(again, never_closed)
        got = await all_of(theirs)
    assert frames.startswith(got)
    assert 0 < len(got) < len(frames)


async def test_a_cancellation_while_waiting_for_its_turn_lets_go_of_the_file(long, pair):
    journal, frames = long
    stream, theirs = pair
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_frames, frames, never_closed)
            await wait_all_tasks_blocked()
            before = descriptors()
            with trio.CancelScope() as scope:
                scope.cancel()
                await stream.send_frames(journal.hold(0), never_closed)
            assert descriptors() == before
            nursery.start_soon(all_of, theirs)
            await stream.send_all(b"the stream is sound")
            await stream.send_eof()


async def test_frames_are_not_sent_and_the_file_is_let_go_when_a_close_came_first(long, pair):
    journal, _ = long
    assert await pair[0].send_frames(journal.hold(0), lambda: True) is False


async def test_a_client_that_takes_nothing_of_a_file_is_evicted(long):
    journal, _ = long
    stream, theirs = await tiny_socket_pair(send_deadline=0.05)
    with trio.fail_after(5):
        with pytest.raises(trio.BrokenResourceError, match="takes nothing"):
            await stream.send_frames(journal.hold(0), never_closed)
    assert stream.evicted
    assert stream._stream.socket.fileno() == -1
    await both_closed(stream, theirs)


async def test_the_deadline_is_renewed_with_each_bit_that_a_client_takes_of_a_file(long):
    journal, frames = long
    deadline = 0.25
    stream, theirs = await tiny_socket_pair(send_deadline=deadline)
    begun, got = trio.current_time(), 0
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_frames, journal.hold(0), never_closed)
            while got < len(frames):
                if trio.current_time() - begun < deadline * 2:
                    await trio.sleep(deadline / 10)
                got += len(await theirs.receive_some(65536))
    assert trio.current_time() - begun > deadline * 1.5
    assert not stream.evicted
    await both_closed(stream, theirs)


async def test_the_peer_that_resets_while_a_file_is_sent_breaks_the_stream(long, pair):
    journal, _ = long
    stream, theirs = pair
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:

            async def send():
                with pytest.raises(trio.BrokenResourceError, match="gone"):
                    await stream.send_frames(journal.hold(0), never_closed)

            nursery.start_soon(send)
            await wait_all_tasks_blocked()
            await trio.aclose_forcefully(theirs)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS])
async def test_the_file_is_read_when_its_file_system_cannot_send(long, pair, monkeypatch, number):
    def cannot(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "sendfile", cannot)
    journal, frames = long
    assert await sent_while(*pair, journal.hold(0), bool) == frames


async def test_a_file_that_became_shorter_ends_the_connection_when_it_is_read(long, pair, monkeypatch):
    def cannot(*_):
        raise OSError(errno.EINVAL, "")

    monkeypatch.setattr(os, "sendfile", cannot)
    journal, _ = long
    os.truncate(frames_path(journal.folder, 1), 0)
    with trio.fail_after(5), pytest.raises(trio.BrokenResourceError):
        await pair[0].send_frames(journal.hold(0), never_closed)


async def test_no_step_is_longer_than_its_bound(long, monkeypatch):
    steps = []

    def noting(socket, fd, position, size):
        steps.append(size)
        return size

    monkeypatch.setattr(os, "sendfile", noting)
    journal, frames = long
    stream, theirs = await tiny_socket_pair(send_deadline=5)
    await stream.send_frames(journal.hold(0), never_closed)
    assert sum(steps) == len(frames)
    assert max(steps) == stream_module._FILE_STEP
    await both_closed(stream, theirs)


def test_stream_in_memory_takes_no_files(tmp_path):
    assert not ClientStream(memory_stream_pair()[0], send_deadline=1).takes_files


async def test_stream_under_tls_takes_no_files():
    import ssl

    ours, theirs = trio.socket.socketpair()
    with ours, theirs:
        secured = trio.SSLStream(trio.SocketStream(ours), ssl.create_default_context(), server_hostname="x")
        assert not ClientStream(secured, send_deadline=1).takes_files
        assert ClientStream(trio.SocketStream(theirs), send_deadline=1).takes_files


async def test_a_client_in_memory_gets_the_history_that_one_on_a_socket_gets(tmp_path, monkeypatch):
    sent = []
    real = Stored.send
    monkeypatch.setattr(Stored, "send", lambda *args, **more: sent.append(real(*args, **more)) or sent[-1])
    last = 300
    with trio.fail_after(20):
        async with open_listening_room(tmp_path / "sockets") as (room, url):
            room.write_many(last, "x" * 5000)  # beyond the ring, and more than a chunk
            async with open_client(url + room.path(offset=7)) as ws:
                over_a_socket = journaled(await events_until(ws, lambda event: event.get("offset") == last))
            assert sum(sent) > (last - 7) * 5000
            sent.clear()
            async with room.join(offset=7) as ws:
                in_memory = journaled(await events_until(ws, lambda event: event.get("offset") == last))
            assert sent == []
            assert room.journal.delivered == last
    assert over_a_socket == in_memory
    assert [event["offset"] for event in in_memory] == list(range(8, last + 1))


async def test_history_is_whole_when_it_is_pruned_and_grows_while_a_slow_client_reads(tmp_path):
    """Offsets in order; what had been pruned before its turn is named by a gap, and nothing else is missing."""
    size, offset = 20_000, 0
    with trio.fail_after(30):
        async with open_listening_room(tmp_path, journal_limit=2 << 20) as (room, url):
            room.write_many(95, "x" * size)
            async with open_client(url + room.path()) as ws:
                await next_event(ws)
                while offset < 400:
                    if room.journal.offset < 400:
                        room.write_many(5, "y" * size)
                    event = await next_event(ws)
                    if event["event"] == "replay_gap":
                        assert event["data"]["from"] == offset + 1
                        offset = event["data"]["to"]
                    elif "offset" in event:
                        assert event["offset"] == offset + 1
                        offset += 1


def test_cursor_gives_the_file_by_chunks_and_reads_without_free_descriptors(tmp_path, monkeypatch):
    with opened(tmp_path, limit=64 << 20) as (journal, _):
        for at in range(4):
            note(journal, str(at) * journal_module.CHUNK_BYTES)
        cursor = Cursor(journal, 0, from_file=True)
        first = cursor.read_nowait()
        assert isinstance(first, Stored)
        assert cursor.offset == first.offset == 1
        assert os.pread(first.fd, first.length, first.position) == journal.read(0).data
        first.close()
        plain = journal.read(1)

        def full(_):
            raise OSError(errno.EMFILE, "")

        monkeypatch.setattr(os, "dup", full)
        assert cursor.read_nowait() == plain
        assert cursor.offset == 2


def test_what_is_held_stops_before_a_damaged_event_and_names_it(tmp_path):
    with opened(tmp_path) as (journal, _):
        for at in range(6):
            note(journal, f"{at}")
        path = frames_path(journal.folder, 1)
        sizes = journal._segments[0].sizes(0, 6)
    data = bytearray(path.read_bytes())
    data[sum(sizes[:3]) + 8] ^= 1
    path.write_bytes(data)
    with opened(tmp_path) as (journal, _):
        for after in range(6):
            chunk, plain = journal.hold(after), journal.read(after)
            if isinstance(chunk, Stored):
                assert (os.pread(chunk.fd, chunk.length, chunk.position), chunk.offset) == plain
                chunk.close()
            else:
                assert chunk == plain
        assert (journal.read(0).offset, journal.read(3), journal.read(4).offset) == (3, Gap(4, 4), 6)


async def test_a_room_in_memory_leaves_no_descriptor(tmp_path):
    with open_room(tmp_path) as room:
        room.write_many(3)
        async with room.join() as ws:
            await events_until(ws, lambda event: event.get("offset") == 3)
