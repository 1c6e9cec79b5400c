"""Cursors: every offset once, in order, or named as missing; live frames only for those who keep up."""

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from daemon.journal import journal
from daemon.journal.cursor import Cursor, EndOfJournal
from daemon.journal.journal import Gap
from tests.journal.history import drained, note, opened, say, told_in


def test_cursor_reads_history_and_follows_when_caught_up(written):
    note(written, "one")
    cursor = Cursor(written, 0)
    assert drained(cursor) == [1]
    note(written, "two")
    say(written, "live")
    note(written, "three")
    assert drained(cursor) == [2, "live", 3]
    assert cursor.offset == 3
    for word in ("four", "five"):
        assert drained(cursor) == []
        say(written, word)
        assert drained(cursor) == [word]


def test_cursor_begins_after_its_offset(written):
    for word in "abc":
        note(written, word)
    assert drained(Cursor(written, 2)) == [3]
    assert drained(Cursor(written, 3)) == []


def test_live_frames_are_not_for_those_who_were_behind(written):
    note(written, "one")
    say(written, "missed")
    cursor = Cursor(written, 0)
    assert drained(cursor) == [1]
    say(written, "seen")
    assert drained(cursor) == ["seen"]


def test_frames_are_read_in_chunks_when_the_history_is_long(written):
    for at in range(8):
        note(written, str(at) * journal.CHUNK_BYTES)
    cursor = Cursor(written, 0)
    assert [told_in(cursor.read_nowait()) for _ in range(9)] == [[1], [2], [3], [4], [5], [6], [7], [8], []]


@pytest.mark.parametrize("size", [1, 3000])
def test_cursor_misses_live_frames_alone_when_it_falls_off_the_ring(written, size):
    """By the number of frames, and by their bytes."""
    cursor = Cursor(written, 0)
    assert drained(cursor) == []
    say(written, "missed")
    count = journal.RING_EVENTS + 1 if size == 1 else journal.RING_BYTES // size + 1
    for _ in range(count):
        note(written, "x" * size)
    assert drained(cursor) == list(range(1, count + 1))
    say(written, "seen")
    assert drained(cursor) == ["seen"]


def test_ring_stays_within_its_bounds(written):
    for size in (1, 1, 3000, journal.RING_BYTES * 2, 1, 3000):
        for _ in range(journal.RING_EVENTS // 4):
            say(written, "x" * size)
            assert len(written._ring) <= journal.RING_EVENTS
            assert written._ring_bytes == sum(len(ready) for ready, _ in written._ring)
            assert written._ring_bytes <= journal.RING_BYTES or len(written._ring) == 1


def test_late_frames_come_once_where_history_ends(written):
    written.late_frames = lambda: [
        written.live_frame("tool_output", tool_use_id="t", position=0, text=text) for text in ("so", "far")
    ]
    note(written, "one")
    cursor = Cursor(written, 0)
    assert told_in(cursor.read_nowait()) == [1]
    assert told_in(cursor.read_nowait()) == ["so", "far"]
    say(written, "more")
    assert drained(cursor) == ["more"]
    assert cursor.offset == 1


def test_late_frames_come_again_after_falling_off_the_ring(written):
    written.late_frames = lambda: [written.live_frame("tool_output", tool_use_id="t", position=0, text="so far")]
    cursor = Cursor(written, 0)
    assert drained(cursor) == ["so far"]
    for _ in range(journal.RING_EVENTS + 1):
        say(written, "missed")
    assert drained(cursor) == ["so far"]


def test_gap_is_told_and_passed_when_events_were_pruned(tmp_path):
    with opened(tmp_path, limit=4096) as (written, _):
        for _ in range(100):
            note(written, "x" * 100)
        first = written.first
        assert first > 1
        assert drained(Cursor(written, 0)) == [Gap(1, first - 1), *range(first, 101)]
        assert drained(Cursor(written, first)) == [*range(first + 1, 101)]


async def test_read_waits_until_an_event_comes(written, autojump_clock):
    cursor, told = Cursor(written, 0), []

    async def follow() -> None:
        while True:
            told.extend(told_in(await cursor.read()))

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            await wait_all_tasks_blocked()
            assert told == []
            for word in ("one", "two"):
                note(written, word)
            say(written, "live")
            assert told == [], "append does not run its readers"
            await wait_all_tasks_blocked()
            assert told == [1, 2, "live"]
            nursery.cancel_scope.cancel()


async def test_every_reader_is_woken_when_one_event_comes(written, autojump_clock):
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(Cursor(written, 0).read)
            await wait_all_tasks_blocked()
            note(written, "one")


async def test_read_ends_when_the_journal_has_ended_and_all_is_read(written, autojump_clock):
    note(written, "one")
    cursor, told = Cursor(written, 0), []

    async def follow() -> None:
        try:
            while True:
                told.extend(told_in(await cursor.read()))
        except EndOfJournal:
            told.append("end")

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            await wait_all_tasks_blocked()
            note(written, "two")
            written.end()
        assert told == [1, 2, "end"]


async def test_waiting_read_ends_when_the_journal_ends(written, autojump_clock):
    async def follow() -> None:
        with pytest.raises(EndOfJournal):
            await Cursor(written, 0).read()

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            await wait_all_tasks_blocked()
            written.end()


async def test_history_is_read_before_the_end_when_the_journal_has_ended(written):
    note(written, "one")
    written.end()
    cursor = Cursor(written, 0)
    with trio.fail_after(5):
        assert told_in(await cursor.read()) == [1]
        with pytest.raises(EndOfJournal):
            await cursor.read()


async def test_nothing_is_lost_when_a_read_is_cancelled(written, autojump_clock):
    cursor = Cursor(written, 0)
    with trio.move_on_after(1) as waiting:
        await cursor.read()
    assert waiting.cancelled_caught
    note(written, "one")
    with trio.CancelScope() as scope:
        scope.cancel()
        await cursor.read()
    assert scope.cancelled_caught
    with trio.fail_after(5):
        assert told_in(await cursor.read()) == [1]


async def test_read_is_a_checkpoint_when_there_is_much_to_read(written):
    note(written, "one")
    with assert_checkpoints():
        await Cursor(written, 0).read()
