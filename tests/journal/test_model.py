"""Any sequence of appends, reads and reopenings, against a list: every offset exactly once, in order, or named as missing."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from daemon.journal import frames, ring
from daemon.journal.cursor import Cursor
from daemon.journal.events import encode
from daemon.journal.journal import Gap, Journal, load_journal
from tests.journal.history import held, note, say, texts, told_in


class Follower:
    """A client as the model sees it: what it must be told next."""

    def __init__(self, written: Journal, offset: int) -> None:
        self.offset = offset
        self.cursor = Cursor(written, offset)
        self.place: int | None = None  # where in all that was shown it is, once it has caught up


class Journals(RuleBasedStateMachine):
    """A journal with a small limit, against a list of everything that was ever appended or shown."""

    followers = Bundle("followers")
    limit = 4096

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.written, _ = load_journal("s", Path(self.folder.name), limit=self.limit, writable=True)
        self.epoch = self.written.epoch
        self.appended: list[str] = []
        self.shown: list[tuple[int | str, int]] = []  # an offset or a live text, and the size of its frame
        self.all: list[Follower] = []
        self.reopened_at = 0

    @rule(size=st.integers(0, 900))
    def append(self, size: int) -> None:
        text = f"{len(self.appended) + 1}:" + "x" * size
        assert note(self.written, text) == len(self.appended) + 1
        self.appended.append(text)
        encoded = encode("s", "files_changed", {"paths": [text]}, len(self.appended))
        self.shown.append((len(self.appended), len(frames.frame(encoded))))

    @rule(size=st.sampled_from([0, 10, ring.MOST_BYTES // 2, ring.MOST_BYTES]))
    def publish(self, size: int) -> None:
        text = f"live {len(self.shown)}" + "x" * size
        say(self.written, text)
        self.shown.append((text, len(self.written.live_frame("tool_output", tool_use_id="t", position=0, text=text))))

    @rule(sizes=st.lists(st.one_of(st.integers(0, 900), st.none()), max_size=12))
    def together(self, sizes: list[int | None]) -> None:
        """Several at once; None is a live one."""
        with self.written.together():
            for size in sizes:
                if size is None:
                    self.publish(ring.MOST_BYTES // 3)
                else:
                    self.append(size)

    @precondition(lambda self: len(self.all) < 3)
    @rule(target=followers, data=st.data())
    def follow(self, data: st.DataObject) -> Follower:
        follower = Follower(self.written, data.draw(st.integers(0, len(self.appended))))
        self.all.append(follower)
        return follower

    @rule(follower=followers)
    def read(self, follower: Follower) -> None:
        self._read(follower)

    @rule()
    def catch_up(self) -> None:
        for follower in self.all:
            while self._read(follower):
                pass
            assert follower.offset == len(self.appended)

    def _read(self, follower: Follower) -> bool:
        """One read, judged; whether there was anything."""
        kept_up = follower.place is not None and self._ring_reaches(follower.place)
        chunk = follower.cursor.read_nowait()
        told = told_in(chunk)
        if kept_up:
            assert told == [what for what, _ in self.shown[follower.place :]]
        for what in told:
            if isinstance(what, Gap):
                assert what == Gap(follower.offset + 1, self.written.first - 1)
                follower.offset = what.last
            elif isinstance(what, int):
                assert what == follower.offset + 1
                follower.offset = what
            else:
                assert kept_up
        assert follower.cursor.offset == follower.offset
        caught_up = kept_up or chunk is None
        assert not (chunk is None and follower.offset < len(self.appended)), "not caught up, and told of nothing"
        follower.place = len(self.shown) if caught_up else None
        return chunk is not None

    @precondition(lambda self: len(self.shown) > self.reopened_at + 8)
    @rule()
    def reopen(self) -> None:
        self.reopened_at = len(self.shown)
        self.written.close()
        self.written, recovery = load_journal("s", Path(self.folder.name), limit=self.limit, writable=True)
        assert (recovery.cut, recovery.damaged, self.written.epoch) == (None, 0, self.epoch)
        for follower in self.all:
            follower.cursor = Cursor(self.written, follower.offset)
            follower.place = None

    @invariant()
    def everything_held_is_what_was_appended(self) -> None:
        assert self.written.offset == len(self.appended)
        after = self.written.first - 1
        assert texts(held(self.written, after)) == self.appended[after:]

    @invariant()
    def limit_is_kept(self) -> None:
        assert sum(path.stat().st_size for path in self.written.folder.glob("*.frames")) <= self.limit

    def teardown(self) -> None:
        try:
            self.catch_up()
        finally:
            self.written.close()
            self.folder.cleanup()

    def _ring_reaches(self, place: int) -> bool:
        since = [size for _, size in self.shown[place:]]
        return len(since) <= 1 or (sum(since) <= ring.MOST_BYTES and len(since) <= ring.MOST_FRAMES)


def test_every_offset_is_told_once_in_order_or_named_as_missing():
    run_state_machine_as_test(Journals, settings=settings(max_examples=25, stateful_step_count=40, deadline=None))


@pytest.mark.slow
def test_every_offset_is_told_once_in_order_or_named_as_missing_in_many_runs():
    run_state_machine_as_test(Journals, settings=settings(max_examples=200, stateful_step_count=60, deadline=None))
