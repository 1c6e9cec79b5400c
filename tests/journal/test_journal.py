"""The journal: offsets, segments and the size limit."""

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from daemon.errors import Bug
from daemon.journal.frames import end_of_frame
from daemon.journal.journal import Frames, Gap
from tests.journal.history import SMALL, file_of, files, held, note, offsets, opened, say, texts
from tests.support import descriptors

# --- events


def test_offsets_count_from_one_without_gaps(written):
    assert (written.offset, written.first, written.read(0)) == (0, 1, None)
    assert [note(written, word) for word in "abc"] == [1, 2, 3]
    assert (written.offset, written.first) == (3, 1)
    assert [(event["offset"], event["data"]["paths"]) for event in held(written)] == [
        (1, ["a"]),
        (2, ["b"]),
        (3, ["c"]),
    ]


def test_event_is_json_that_names_its_session(written):
    note(written, "a")
    (payload,) = written.payloads(0, written.read(0))
    assert msgspec.json.decode(payload)["session_id"] == "s"


def test_event_lies_on_disk_when_append_returns(written, tmp_path):
    for word in "abc":
        note(written, word)
        assert file_of(tmp_path, 1, "frames").read_bytes() == written.read(0).data


def test_live_event_is_neither_written_nor_numbered(written, tmp_path):
    note(written, "a")
    before = files(tmp_path)
    say(written, "live")
    assert (files(tmp_path), written.offset, len(held(written))) == (before, 1, 1)


def test_nothing_is_written_when_an_event_is_refused(written, tmp_path):
    before = files(tmp_path)
    for kind, data in (("no_such", {}), ("claude_text", {"turn": 1}), ("pong", {})):
        with pytest.raises(Bug):
            written.append(kind, **data)
    with pytest.raises(UnicodeEncodeError):
        note(written, "\udc80")
    assert (files(tmp_path), written.offset) == (before, 0)
    assert note(written, "a") == 1


def test_append_is_refused_when_the_journal_has_ended(written):
    note(written, "a")
    written.end()
    with pytest.raises(Bug, match="ended"):
        note(written, "b")
    assert texts(held(written)) == ["a"]


def test_history_is_the_same_whatever_the_pages(written):
    for at in range(30):
        note(written, "x" * (at * 7))
    whole = held(written)
    for limits in ({"max_events": 1}, {"max_events": 7}, {"max_bytes": 1}, {"max_bytes": 700}):
        assert held(written, **limits) == whole
    assert held(written, 29) == whole[29:]


def test_chunk_ends_within_its_limits(written):
    for _ in range(10):
        note(written, "x")
    assert written.read(2, max_events=3).offset == 5
    one = len(written.read(0, max_events=1).data)
    assert isinstance(chunk := written.read(0, max_bytes=one * 3 + 1), Frames)
    assert (chunk.offset, len(chunk.data)) == (3, one * 3)


async def test_whoever_waits_for_a_change_goes_on_when_there_is_one(written, autojump_clock):
    woken = []

    async def wait() -> None:
        await written.wait_change()
        woken.append(True)

    async with trio.open_nursery() as nursery:
        for change in (lambda: note(written, "a"), lambda: say(written, "live"), written.end):
            woken.clear()
            for _ in range(2):
                nursery.start_soon(wait)
            with trio.move_on_after(1):
                await written.wait_change()  # one that gave up
            assert woken == []
            change()
            assert woken == [], "append does not run its readers"
            await wait_all_tasks_blocked()
            assert woken == [True, True]


# --- segments


def test_history_is_read_across_segments(segmented):
    folder, firsts, last = segmented
    with opened(folder, limit=SMALL, writable=False) as (journal, recovery):
        assert texts(held(journal)) == [str(offset) for offset in range(1, last + 1)]
        assert recovery.events == last
        assert {segment.first for segment in journal._segments} == set(firsts)
        assert texts(held(journal, firsts[1] - 2)) == [str(offset) for offset in range(firsts[1] - 1, last + 1)]


def test_oldest_segments_go_when_the_limit_is_reached(tmp_path):
    before = descriptors()
    with opened(tmp_path, limit=SMALL) as (journal, _):
        for _ in range(500):
            note(journal, "x" * 50)
            assert sum(len(data) for name, data in files(tmp_path).items() if name.endswith("frames")) <= SMALL
        first = journal.first
        assert 1 < first < 500
        assert journal.read(0) == Gap(1, first - 1)
        assert len(files(tmp_path)) == 2 * len(journal._segments) <= 10
        assert len(descriptors() - before) == 2 * len(journal._segments)
    with opened(tmp_path, limit=SMALL) as (journal, recovery):
        assert (journal.first, journal.offset, recovery.damaged) == (first, 500, 0)
        assert offsets(held(journal)) == list(range(1, 501))
        assert note(journal, "more") == 501


def test_event_is_kept_when_it_is_larger_than_the_limit(tmp_path):
    with opened(tmp_path, limit=SMALL) as (journal, _):
        note(journal, "small")
        note(journal, "x" * SMALL)
        assert texts(held(journal)) == [Gap(1, 1), "x" * SMALL]
        note(journal, "small")
        assert texts(held(journal)) == [Gap(1, 2), "small"]


def test_older_segments_go_when_the_limit_became_smaller(segmented):
    folder, firsts, last = segmented
    with opened(folder, limit=4096) as (journal, _):
        note(journal, "more")
        assert sum(len(data) for name, data in files(folder).items() if name.endswith("frames")) <= 4096
        assert offsets(held(journal)) == list(range(1, last + 2))
        assert journal.first == firsts[1]


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("suffixes", [("frames",), ("frames", "index")])
def test_segment_is_a_gap_when_it_is_gone(segmented, which, suffixes):
    folder, firsts, last = segmented
    for suffix in suffixes:
        file_of(folder, firsts[which], suffix).unlink()
    expected = [str(offset) for offset in range(1, last + 1)]
    as_if_pruned = (which, len(suffixes)) == (0, 2)
    lost = 0 if as_if_pruned else firsts[which + 1] - firsts[which]
    expected[firsts[which] - 1 : firsts[which + 1] - 1] = [Gap(firsts[which], firsts[which + 1] - 1)]
    for writable in (False, True, True):
        with opened(folder, limit=SMALL, writable=writable) as (journal, recovery):
            assert texts(held(journal)) == expected
            assert (recovery.damaged, journal.epoch) == (lost, file_of(folder, 1, "x").parent.name)
    with opened(folder, limit=SMALL) as (journal, _):
        assert note(journal, "more") == last + 1


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("torn", [0, 10])
def test_rest_of_a_segment_is_a_gap_when_it_was_cut_in_the_middle(segmented, which, torn):
    folder, firsts, last = segmented
    frames = file_of(folder, firsts[which], "frames")
    data, end = memoryview(frames.read_bytes()), 0
    for _ in range(4):
        end = end_of_frame(data, end)
    frames.write_bytes(data[: end + torn])
    gap = Gap(firsts[which] + 4, firsts[which + 1] - 1)
    expected = [str(offset) for offset in range(1, last + 1)]
    expected[gap.first - 1 : gap.last] = [gap]
    for writable in (False, True, True):
        with opened(folder, limit=SMALL, writable=writable) as (journal, recovery):
            assert texts(held(journal)) == expected
            assert (recovery.damaged, journal.epoch) == (gap.last - gap.first + 1, frames.parent.name)


def test_offsets_are_not_used_twice_in_an_epoch_when_the_last_frames_are_gone(segmented):
    folder, firsts, _ = segmented
    frames = file_of(folder, firsts[2], "frames")
    frames.unlink()
    with opened(folder, limit=SMALL) as (journal, recovery):
        assert journal.epoch != frames.parent.name
        assert recovery.cut
        assert note(journal, "more") == firsts[2]
        assert offsets(held(journal)) == list(range(1, firsts[2] + 1))


def test_other_files_do_not_matter(segmented):
    folder, _, last = segmented
    file_of(folder, 1, "x").with_name("notes.txt").write_text("by hand")
    with opened(folder, limit=SMALL) as (journal, _):
        assert journal.offset == last
