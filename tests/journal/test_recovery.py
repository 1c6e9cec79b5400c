"""Recovery: every byte of a small journal cut off and flipped in turn.

With one byte wrong, or one file short, it is known exactly what can be proven; so that is what must be found, by a reader, by
a writer, and by the next one.
"""

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.journal.frames import end_of_frame, frame
from daemon.journal.journal import Gap
from daemon.journal.recovery import RECORD, record, recover
from tests.journal.history import files, held, note, offsets, opened, texts

WORDS = ["one", "zwei " * 6, "", "vïer"]  # the second one has a longer header
FLIPS = (0x01, 0x80, 0xFF, 0x20)
EVERY_BIT = [pytest.param(1 << bit, marks=pytest.mark.slow) for bit in range(8)]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A journal's folder that nobody changes, and where its frames end."""
    folder = tmp_path_factory.mktemp("sound")
    with opened(folder) as (journal, _):
        for word in WORDS:
            note(journal, word)
        data, _ = journal.read(0)
    ends = [0]
    while (end := end_of_frame(memoryview(data), ends[-1])) is not None:
        ends.append(end)
    assert len(ends) == len(WORDS) + 1
    return folder, ends[1:]


class Copy:
    """A copy of that journal which is damaged again and again."""

    def __init__(self, sound: Path, folder: Path) -> None:
        self.folder = folder
        (self._sound,) = sound.iterdir()
        self.epoch = self._sound.name
        self.contents = {path.suffix[1:]: path.read_bytes() for path in self._sound.iterdir()}

    def damage(self, **contents: bytes | None) -> None:
        """As it was, but for these files; None takes one away."""
        shutil.rmtree(self.folder, ignore_errors=True)
        home = self.folder / self.epoch
        home.mkdir(parents=True)
        for suffix, data in {**self.contents, **contents}.items():
            if data is not None:
                (home / f"000000000001.{suffix}").write_bytes(data)

    def check(self, expected: list[str | Gap], *, end_may_have_been_seen: bool) -> None:
        """A reader, a writer and the next one find exactly this, and an event can follow it."""
        before = files(self.folder)
        with opened(self.folder, writable=False) as (journal, recovery):
            found = held(journal)
            assert texts(found) == expected
            assert journal.epoch == self.epoch
            events = [event for event in found if not isinstance(event, Gap)]
            assert (recovery.events, recovery.damaged) == (len(events), len(offsets(found)) - len(events))
        assert files(self.folder) == before, "a reader changed something"
        with opened(self.folder) as (journal, recovery):
            assert held(journal) == found
            assert (journal.epoch != self.epoch) is end_may_have_been_seen
            assert recovery.cut or not end_may_have_been_seen
            epoch = journal.epoch
        before = files(self.folder)
        with opened(self.folder) as (journal, recovery):
            assert (held(journal), journal.epoch, recovery.cut) == (found, epoch, None)
        assert files(self.folder) == before, "repairing was not done once and for all"
        with opened(self.folder) as (journal, _):
            assert note(journal, "more") == len(expected) + 1
            assert texts(held(journal)) == [*expected, "more"]
        with opened(self.folder) as (journal, recovery):
            after = held(journal)
            assert (after[:-1], texts(after[-1:]), recovery.cut) == (found, ["more"], None)
            assert offsets(after) == list(range(1, len(expected) + 2))
            assert journal.epoch == epoch


@pytest.fixture
def copy(sound, tmp_path):
    return Copy(sound[0], tmp_path / "journal")


def flipped(data: bytes, at: int, bits: int) -> bytes:
    return data[:at] + bytes([data[at] ^ bits]) + data[at + 1 :]


def test_journal_is_found_as_it_was_when_nothing_is_wrong(copy):
    copy.damage()
    copy.check(WORDS, end_may_have_been_seen=False)


def test_every_whole_frame_is_kept_when_the_frames_are_cut_at_any_length(copy, sound):
    for length in range(len(copy.contents["frames"])):
        copy.damage(frames=copy.contents["frames"][:length])
        kept = sum(end <= length for end in sound[1])
        copy.check(WORDS[:kept], end_may_have_been_seen=True)


def test_nothing_is_lost_when_the_index_is_cut_at_any_length(copy):
    for length in range(len(copy.contents["index"])):
        copy.damage(index=copy.contents["index"][:length])
        copy.check(WORDS, end_may_have_been_seen=False)


@pytest.mark.parametrize("bits", [None, *EVERY_BIT])
def test_nothing_is_lost_when_any_byte_of_the_index_is_flipped(copy, bits):
    for at in range(len(copy.contents["index"])):
        copy.damage(index=flipped(copy.contents["index"], at, bits or FLIPS[at % len(FLIPS)]))
        copy.check(WORDS, end_may_have_been_seen=False)


@pytest.mark.parametrize("bits", [None, *EVERY_BIT])
def test_one_event_is_lost_and_named_when_any_byte_of_the_frames_is_flipped(copy, sound, bits):
    last = len(WORDS) - 1
    for at in range(len(copy.contents["frames"])):
        lost = sum(end <= at for end in sound[1])
        copy.damage(frames=flipped(copy.contents["frames"], at, bits or FLIPS[at % len(FLIPS)]))
        if lost == last:
            copy.check(WORDS[:last], end_may_have_been_seen=True)
        else:
            gap = Gap(lost + 1, lost + 1)
            copy.check([*WORDS[:lost], gap, *WORDS[lost + 1 :]], end_may_have_been_seen=False)


def test_a_new_epoch_begins_when_a_file_of_frames_is_gone(copy):
    copy.damage(frames=None)
    copy.check([], end_may_have_been_seen=True)


def test_nothing_is_lost_when_the_index_is_gone(copy):
    copy.damage(index=None)
    copy.check(WORDS, end_may_have_been_seen=False)


def test_frame_is_kept_when_its_record_was_not_written_yet(copy):
    with opened(copy.folder / "other") as (journal, _):
        for word in [*WORDS, "five"]:
            note(journal, word)
        data, _ = journal.read(len(WORDS))
    copy.damage(frames=copy.contents["frames"] + data)
    copy.check([*WORDS, "five"], end_may_have_been_seen=False)


def test_torn_frame_is_cut_in_the_same_epoch_when_it_has_no_record(copy):
    torn = frame(b'{"offset":5,"data":{}}')
    for length in range(1, len(torn)):
        copy.damage(frames=copy.contents["frames"] + torn[:length])
        copy.check(WORDS, end_may_have_been_seen=False)


def test_frame_is_cut_when_it_has_no_record_and_another_offset(copy):
    copy.damage(frames=copy.contents["frames"] + frame(b'{"offset":6,"data":{}}'))
    copy.check(WORDS, end_may_have_been_seen=False)


def test_adjacent_lost_events_are_each_named(copy, sound):
    data = flipped(flipped(copy.contents["frames"], sound[1][0], 1), sound[1][1], 1)
    copy.damage(frames=data)
    copy.check([WORDS[0], Gap(2, 2), Gap(3, 3), WORDS[3]], end_may_have_been_seen=False)


def test_lost_events_are_cut_with_the_end_when_they_reach_it(copy, sound):
    data = flipped(flipped(copy.contents["frames"], sound[1][1], 1), sound[1][2], 1)
    copy.damage(frames=data)
    copy.check(WORDS[:2], end_may_have_been_seen=True)


def test_lost_event_stays_lost_when_the_index_is_repaired_for_another(copy, sound):
    index = flipped(copy.contents["index"], RECORD.size * 3, 1)
    copy.damage(frames=flipped(copy.contents["frames"], sound[1][1] - 4, 1), index=index)
    copy.check([WORDS[0], Gap(2, 2), *WORDS[2:]], end_may_have_been_seen=False)


def test_lost_event_stays_lost_when_the_end_is_cut_too(copy, sound):
    frames = flipped(copy.contents["frames"], sound[1][1] - 4, 1)[:-1]
    copy.damage(frames=frames)
    copy.check([WORDS[0], Gap(2, 2), WORDS[2]], end_may_have_been_seen=True)


def test_nothing_is_lost_when_sound_records_stand_in_the_wrong_places(copy):
    index = copy.contents["index"]
    first, second, rest = index[: RECORD.size], index[RECORD.size : RECORD.size * 2], index[RECORD.size * 2 :]
    for wrong in (second + first + rest, first + first + rest, second + rest):
        copy.damage(index=wrong)
        copy.check(WORDS, end_may_have_been_seen=False)


def test_segment_ends_where_neither_record_nor_frame_is_sound(copy, sound):
    frames = flipped(copy.contents["frames"], sound[1][1], 1)
    copy.damage(frames=frames, index=flipped(copy.contents["index"], RECORD.size * 2, 1))
    copy.check(WORDS[:2], end_may_have_been_seen=True)


@given(st.lists(st.binary(max_size=40), max_size=4), st.data())
def test_recovery_never_fails_and_never_goes_beyond_the_data(payloads, data):
    frames = b"".join(frame(payload) for payload in payloads) + data.draw(st.binary(max_size=40))
    index = data.draw(st.binary(max_size=60)) + record(0, frames)
    found = recover(frames, index, data.draw(st.integers(1, 10)))
    assert found.size <= len(frames)
    assert list(found.ends) == sorted(found.ends)


@given(
    st.lists(st.tuples(st.sampled_from(["frames", "index"]), st.integers(0, 10_000), st.integers(0, 255)), max_size=6)
)
def test_recovered_events_are_consecutive_whatever_was_damaged(sound, damage):
    (home,) = sound[0].iterdir()
    content = {path.suffix[1:]: path.read_bytes() for path in home.iterdir()}
    for name, at, bits in damage:
        data = content[name]
        at %= len(data) + 1
        content[name] = flipped(data, at, bits) if at < len(data) and bits else data[:at]
    found = recover(content["frames"], content["index"], 1)
    assert len(found.ends) <= len(WORDS)
    assert found.size <= len(content["frames"])
    assert all(0 < lost < len(found.ends) for lost in found.damaged)
    assert set(found.ends) <= set(sound[1])
