"""Cursors: every offset once, in order, or named as missing; live frames only for those who keep up."""

import pytest

from daemon.journal import journal, ring
from daemon.journal.cursor import Cursor, Place
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
    count = ring.MOST_FRAMES + 1 if size == 1 else ring.MOST_BYTES // size + 1
    for _ in range(count):
        note(written, "x" * size)
    assert drained(cursor) == list(range(1, count + 1))
    say(written, "seen")
    assert drained(cursor) == ["seen"]


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
    for _ in range(ring.MOST_FRAMES + 1):
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


def test_cursor_goes_on_from_the_place_to_which_others_brought_its_client(written):
    cursor = Cursor(written, 0)
    assert drained(cursor) == []
    cursor.rest()
    written.ring.join()
    for word in ("one", "two"):
        note(written, word)
        say(written, word)
    cursor.resume(Place(2, 1))
    assert drained(cursor) == [2, "two"]


def test_ring_keeps_nothing_for_a_cursor_that_rests(written):
    cursor = Cursor(written, 0)
    assert drained(cursor) == []
    say(written, "kept")
    assert len(written.ring) == 1
    cursor.rest()
    cursor.rest()
    say(written, "not kept")
    note(written, "one")
    assert len(written.ring) == 0
    assert drained(cursor) == [1]
