"""The journal on a disk that is full, in a process that has no descriptors left, and opened in vain."""

import resource
import shutil
from contextlib import ExitStack

import pytest

from daemon.errors import JournalFull
from daemon.journal.cursor import Cursor
from daemon.journal.journal import Gap, load_journal, open_journal
from tests.journal.history import (
    LIMIT,
    SMALL,
    drained,
    file_of,
    files,
    held,
    lowered,
    lowest_free_descriptor,
    note,
    offsets,
    opened,
    say,
    texts,
)
from tests.support import descriptors


def test_nothing_is_mistaken_when_an_opening_that_repairs_was_broken_off(tmp_path):
    """One event is wrong, the end is missing, and the disk is full while the index is written anew."""
    with opened(tmp_path) as (journal, _):
        epoch = journal.epoch
        for word in "abcd":
            note(journal, word)
    frames = file_of(tmp_path, 1, "frames")
    data = frames.read_bytes()
    frames.write_bytes(data[:-1].replace(b'"b"', b'"B"'))
    before = descriptors()
    with lowered(resource.RLIMIT_FSIZE, 10), pytest.raises(OSError, match="too large"):
        load_journal("s", tmp_path, limit=LIMIT, writable=True)
    assert descriptors() == before
    with opened(tmp_path) as (journal, _):
        assert journal.epoch != epoch
        assert texts(held(journal)) == ["a", Gap(2, 2), "c"]


# --- a disk that is full, a process that has no descriptors left


def test_nobody_sees_an_event_that_could_not_be_written(tmp_path):
    with opened(tmp_path) as (journal, _):
        note(journal, "a")
        cursor = Cursor(journal, 0)
        assert drained(cursor) == [1]
        size = file_of(tmp_path, 1, "frames").stat().st_size
        for limit in (size, size + 1, size + 100):
            with lowered(resource.RLIMIT_FSIZE, limit), pytest.raises(JournalFull, match="too large"):
                note(journal, "b" * 200)
            assert (drained(cursor), journal.offset, texts(held(journal))) == ([], 1, ["a"])
        say(journal, "live")
        assert note(journal, "c") == 2
        assert drained(cursor) == ["live", 2]
    with opened(tmp_path) as (journal, recovery):
        assert (texts(held(journal)), recovery.cut) == (["a", "c"], None)


def note_together(journal, *words):
    with journal.together():
        for word in words:
            say(journal, word)
            note(journal, word)


def test_nobody_sees_any_of_what_could_not_be_written_together(tmp_path):
    with opened(tmp_path) as (journal, _):
        note(journal, "a")
        cursor = Cursor(journal, 0)
        assert drained(cursor) == [1]
        before = files(tmp_path)
        size = file_of(tmp_path, 1, "frames").stat().st_size
        for limit in (size, size + 1, size + 500):
            with lowered(resource.RLIMIT_FSIZE, limit), pytest.raises(JournalFull, match="too large"):
                note_together(journal, *(word * 200 for word in "bcd"))
            assert (drained(cursor), journal.offset, files(tmp_path)) == ([], 1, before)
        with journal.together():
            say(journal, "live")
            assert note(journal, "e") == 2
            assert files(tmp_path) == before
        assert drained(cursor) == ["live", 2]
    with opened(tmp_path) as (journal, recovery):
        assert (texts(held(journal)), recovery.cut) == (["a", "e"], None)


def test_what_was_written_of_a_block_stays_when_the_rest_could_not_be(tmp_path):
    with opened(tmp_path, limit=SMALL) as (journal, _):
        cursor = Cursor(journal, 0)
        assert drained(cursor) == []
        with (
            lowered(resource.RLIMIT_NOFILE, lowest_free_descriptor()),
            pytest.raises(JournalFull, match="open files"),
        ):
            note_together(journal, *["x" * 100] * 100)  # more than one segment holds
        last = journal.offset
        assert last > 1
        assert [told for told in drained(cursor) if isinstance(told, int)] == list(range(1, last + 1))
        assert note(journal, "y") == last + 1
    with opened(tmp_path, limit=SMALL) as (journal, recovery):
        assert (offsets(held(journal)), recovery.cut) == (list(range(1, last + 2)), None)


def test_journal_goes_on_when_a_new_segment_could_not_be_begun(tmp_path):
    with opened(tmp_path, limit=SMALL) as (journal, _):
        while journal._segments[-1].size < SMALL // 4 - 300:
            note(journal, "x")
        last, before = journal.offset, (files(tmp_path), descriptors())
        for spare in (0, 1):
            with (
                lowered(resource.RLIMIT_NOFILE, lowest_free_descriptor() + spare),
                pytest.raises(JournalFull, match="open files"),
            ):
                note(journal, "y" * 500)
            assert (journal.offset, files(tmp_path), descriptors()) == (last, *before)
        assert note(journal, "small enough") == last + 1
    with opened(tmp_path, limit=SMALL) as (journal, recovery):
        assert (journal.offset, recovery.cut) == (last + 1, None)
        assert note(journal, "y" * 500) == last + 2
        assert offsets(held(journal)) == list(range(1, last + 3))


# --- opening and closing


def test_reading_what_is_not_there_is_an_error_and_makes_nothing(tmp_path):
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(FileNotFoundError):
            load_journal("s", folder, limit=LIMIT, writable=False)
    assert list(tmp_path.iterdir()) == []


def test_descriptors_are_given_back_when_opening_fails(segmented):
    folder, firsts, _ = segmented
    index = file_of(folder, firsts[2], "index")
    index.unlink()
    index.mkdir()
    before = descriptors()
    for writable in (False, True):
        with pytest.raises(IsADirectoryError):
            load_journal("s", folder, limit=SMALL, writable=writable)
        assert descriptors() == before


def test_descriptors_are_given_back_when_there_are_not_enough_of_them(segmented):
    folder, _, last = segmented
    before = descriptors()
    for spare in range(4):  # the frames of three segments, and the index of the last
        with (
            lowered(resource.RLIMIT_NOFILE, lowest_free_descriptor() + spare),
            pytest.raises(OSError, match="open files"),
        ):
            load_journal("s", folder, limit=SMALL, writable=True)
        assert descriptors() == before
    with lowered(resource.RLIMIT_NOFILE, lowest_free_descriptor() + 4), opened(folder, limit=SMALL) as (journal, _):
        assert journal.offset == last
    assert descriptors() == before


def test_descriptors_are_given_back_and_the_journal_ended_whatever_happened(tmp_path):
    before = descriptors()
    with ExitStack() as stack:
        stack.enter_context(pytest.raises(ZeroDivisionError))
        journal, recovery = stack.enter_context(open_journal("s", tmp_path, limit=LIMIT))
        assert (recovery.events, recovery.cut, recovery.damaged) == (0, None, 0)
        note(journal, "a")
        raise ZeroDivisionError
    assert journal.ended
    assert descriptors() == before


def test_closed_journal_has_nothing_to_read(tmp_path):
    with opened(tmp_path) as (journal, _):
        note(journal, "a")
    journal.close()
    assert journal.read(0) is None


def test_reader_keeps_reading_when_the_journal_is_deleted(segmented):
    folder, _, last = segmented
    with opened(folder, writable=False) as (journal, _):
        shutil.rmtree(folder)
        assert offsets(held(journal)) == list(range(1, last + 1))
