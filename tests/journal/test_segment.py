"""Segments: what is written, what comes back, and what a full disk leaves behind."""

import os
import resource
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.errors import JournalFull
from daemon.journal.frames import frame
from daemon.journal.recovery import RECORD, Recovered
from daemon.journal.segment import Segment, frames_path, index_path
from tests.journal.history import files, lowered
from tests.support import descriptors

FIRST = 10
FRAMES = [frame(b'{"offset":%d}' % offset + b" " * (offset % 7)) for offset in range(FIRST, 30)]
ENDS = [0, *accumulate(map(len, FRAMES))]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    segment = Segment(tmp_path_factory.mktemp("segment"), FIRST, Recovered())
    segment.make_writable()
    for data in FRAMES:
        segment.append(data)
    yield segment
    segment.close()


@pytest.fixture
def empty(tmp_path):
    segment = Segment(tmp_path, FIRST, Recovered())
    segment.make_writable()
    yield segment
    segment.close()


def test_offsets_and_size_are_those_of_what_was_written(written, empty):
    assert (written.first, written.last, written.size) == (FIRST, 29, ENDS[-1])
    assert (empty.first, empty.last, empty.size) == (FIRST, FIRST - 1, 0)


def test_files_hold_the_frames_and_one_record_each(written):
    assert frames_path(written.folder, FIRST).read_bytes() == b"".join(FRAMES)
    assert index_path(written.folder, FIRST).stat().st_size == RECORD.size * len(FRAMES)


@given(after=st.integers(FIRST - 1, 28), max_bytes=st.integers(0, 600), max_events=st.integers(1, 25))
def test_read_takes_what_the_limits_allow_and_at_least_one(written, after, max_bytes, max_events):
    low = after + 1 - FIRST
    fitting = [high for high in range(low + 1, len(ENDS)) if ENDS[high] - ENDS[low] <= max_bytes]
    high = max(low + 1, min(low + max_events, max(fitting, default=0)))
    assert written.read(after, max_bytes, max_events) == (b"".join(FRAMES[low:high]), FIRST + high - 1)


def test_sizes_are_those_of_the_frames_asked_for(written):
    for after in range(FIRST - 1, 29):
        for last in range(after + 1, 30):
            sizes = [end - start for start, end in pairwise(ENDS[after + 1 - FIRST : last + 2 - FIRST])]
            assert list(written.sizes(after, last)) == sizes


def test_opening_changes_nothing_when_there_is_nothing(tmp_path):
    segment, found = Segment.open(tmp_path, 1)
    segment.close()
    assert (segment.last, found.cut, list(tmp_path.iterdir())) == (0, None, [])


def test_file_that_became_shorter_is_an_error_when_read(empty):
    empty.append(FRAMES[0])
    os.truncate(frames_path(empty.folder, FIRST), 3)
    with pytest.raises(JournalFull, match="shorter"):
        empty.read(FIRST - 1, 1 << 20, 1)


def test_nothing_stays_when_the_disk_is_full_at_any_byte_of_a_frame(empty):
    empty.append(FRAMES[0])
    before = files(empty.folder)
    big = frame(b'{"offset":11,"x":"%s"}' % (b"x" * 40))
    for limit in range(len(FRAMES[0]), len(FRAMES[0]) + len(big)):
        with lowered(resource.RLIMIT_FSIZE, limit), pytest.raises(JournalFull):
            empty.append(big)
        assert files(empty.folder) == before
        assert empty.last == FIRST
    empty.append(big)
    assert empty.read(FIRST, 1 << 20, 10) == (big, FIRST + 1)


def test_nothing_stays_when_the_disk_is_full_for_the_record(empty):
    empty.append(FRAMES[0])
    before = files(empty.folder)
    aside, full = os.dup(empty._index), os.open("/dev/full", os.O_RDWR)
    os.dup2(full, empty._index)
    try:
        with pytest.raises(JournalFull):
            empty.append(FRAMES[1])
    finally:
        os.dup2(aside, empty._index)
        os.close(aside)
        os.close(full)
    assert files(empty.folder) == before
    empty.append(FRAMES[1])
    assert empty.read(FIRST - 1, 1 << 20, 10) == (FRAMES[0] + FRAMES[1], FIRST + 1)


def test_descriptors_are_given_back_when_closed_twice_or_deleted(tmp_path):
    before = descriptors()
    for end in (Segment.close, Segment.delete):
        segment = Segment(tmp_path, FIRST, Recovered())
        segment.make_writable()
        segment.append(FRAMES[0])
        end(segment)
        end(segment)
        assert descriptors() == before
    assert list(tmp_path.iterdir()) == []


def test_what_lay_there_is_kept_when_the_index_is_rewritten_and_the_disk_is_full(tmp_path):
    segment = Segment(tmp_path, FIRST, Recovered())
    segment.make_writable()
    for data in FRAMES:
        segment.append(data)
    segment.close()
    index = index_path(tmp_path, FIRST).read_bytes()
    os.truncate(index_path(tmp_path, FIRST), RECORD.size * 3)
    before = descriptors()
    for records in range(3, len(FRAMES)):
        again, found = Segment.open(tmp_path, FIRST)
        with lowered(resource.RLIMIT_FSIZE, RECORD.size * records + 7), pytest.raises(OSError, match="too large"):
            again.make_writable()
        again.close()
        assert (len(found.ends), again.damaged) == (len(FRAMES), [])
    assert descriptors() == before
    again, found = Segment.open(tmp_path, FIRST)
    again.make_writable()
    again.close()
    assert (len(found.ends), index_path(tmp_path, FIRST).read_bytes()) == (len(FRAMES), index)
