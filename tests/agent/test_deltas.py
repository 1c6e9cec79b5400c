"""Deltas: the first at once, later ones merged over the window, no character lost or told twice."""

from itertools import pairwise

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.agent.deltas import Deltas
from daemon.journal.journal import Journal, open_journal
from daemon.journal.present import Present
from tests.agent.stage import shown


class Told:
    """Deltas of one journal, and when each was told."""

    def __init__(self, journal: Journal, window: float) -> None:
        self.journal = journal
        journal.ring.join()  # for `shown`
        self.present = Present()
        self.deltas = Deltas(journal, self.present, window)
        self.times: list[float] = []

    async def watch(self) -> None:
        while True:
            await self.journal.wait_change()
            self.times += [trio.current_time()] * (len(shown(self.journal)) - len(self.times))

    def texts(self) -> list[str]:
        return [event["data"]["text"] for event in shown(self.journal)]


@pytest.fixture
async def told(tmp_path, nursery):
    with open_journal("abc", tmp_path, limit=1 << 20) as (journal, _), trio.fail_after(1000):
        told = Told(journal, 1.0)
        nursery.start_soon(told.deltas.run)
        nursery.start_soon(told.watch)
        await trio.testing.wait_all_tasks_blocked()
        yield told


async def test_first_delta_of_a_block_is_sent_at_once(told, autojump_clock):
    told.deltas.open(3, 7, "text")
    told.deltas.add("a")
    assert shown(told.journal)[0]["event"] == "claude_text_delta"
    assert shown(told.journal)[0]["data"] == {"turn": 3, "block": 7, "position": 0, "text": "a"}


async def test_thinking_has_its_own_kind(told, autojump_clock):
    told.deltas.open(1, 0, "thinking")
    told.deltas.add("hm")
    assert shown(told.journal)[0]["event"] == "claude_thinking_delta"


async def test_later_deltas_are_merged_until_the_window_is_over(told, autojump_clock):
    told.deltas.open(1, 0, "text")
    start = trio.current_time()
    for text in ("a", "b", "c"):
        told.deltas.add(text)
        await trio.sleep(0.25)
    assert told.texts() == ["a"]
    await trio.sleep_until(start + 1.5)
    assert told.texts() == ["a", "bc"]
    assert [time - start for time in told.times] == [0, 1]


async def test_delta_after_a_pause_longer_than_the_window_is_sent_at_once(told, autojump_clock):
    told.deltas.open(1, 0, "text")
    told.deltas.add("a")
    await trio.sleep(5)
    told.deltas.add("b")
    assert told.texts() == ["a", "b"]


async def test_first_delta_of_the_next_block_does_not_wait_for_the_window(told, autojump_clock):
    told.deltas.open(1, 0, "text")
    told.deltas.add("a")
    told.deltas.close()
    told.deltas.open(1, 1, "text")
    told.deltas.add("b")
    assert told.texts() == ["a", "b"]


async def test_window_of_the_next_block_is_its_own(told, autojump_clock):
    told.deltas.open(1, 0, "text")
    told.deltas.add("a")
    told.deltas.add("A")
    await trio.sleep(0.75)
    told.deltas.close()
    told.deltas.open(1, 1, "text")
    told.deltas.add("b")
    told.deltas.add("c")
    await trio.sleep(0.5)
    assert told.texts() == ["a", "A", "b"]
    await trio.sleep(1)
    assert told.texts() == ["a", "A", "b", "c"]


async def test_closing_sends_what_waits_and_gives_all_text(told, autojump_clock):
    told.deltas.open(1, 0, "text")
    told.deltas.add("a")
    told.deltas.add("b")
    block = told.deltas.close()
    assert block is not None
    assert "".join(block.parts) == "ab"
    assert told.texts() == ["a", "b"]
    await trio.sleep(5)
    assert told.texts() == ["a", "b"]
    assert told.deltas.close() is None


async def test_late_client_is_told_everything_that_others_were_sent(told, autojump_clock):
    told.deltas.open(1, 0, "text")
    told.deltas.add("a")
    told.deltas.add("b")
    await trio.sleep(2)
    told.deltas.add("c")
    told.deltas.add("d")
    assert told.present.deltas() == [("claude_text_delta", {"turn": 1, "block": 0, "position": 0, "text": "abc"})]
    assert len(told.journal.late_frames()) == 1
    await trio.sleep(2)
    assert shown(told.journal)[-1]["data"]["position"] == 3  # where the late one's text ends


async def test_nothing_is_late_between_blocks(told, autojump_clock):
    assert told.journal.late_frames() == []
    told.deltas.open(1, 0, "text")
    assert told.journal.late_frames() == []


@settings(max_examples=30, deadline=None)
@given(
    window=st.sampled_from([0.0, 0.04, 1.0]),
    blocks=st.lists(st.lists(st.tuples(st.text(min_size=1, max_size=3), st.sampled_from([0.0, 0.01, 0.05, 2.0])))),
)
def test_deltas_are_gapless_and_add_up_whatever_comes_when(tmp_path_factory, window, blocks):
    async def body() -> None:
        with open_journal("abc", tmp_path_factory.mktemp("j"), limit=1 << 20) as (journal, _):
            async with trio.open_nursery() as nursery:
                told = Told(journal, window)
                nursery.start_soon(told.deltas.run)
                nursery.start_soon(told.watch)
                await trio.testing.wait_all_tasks_blocked()
                for number, texts in enumerate(blocks):
                    told.deltas.open(1, number, "text")
                    for text, pause in texts:
                        told.deltas.add(text)
                        await trio.sleep(pause)
                    closed = told.deltas.close()
                    assert closed is not None
                    assert "".join(closed.parts) == "".join(text for text, _ in texts)
                await trio.testing.wait_all_tasks_blocked()
                for number, texts in enumerate(blocks):
                    told_here = [
                        (event["data"], time)
                        for event, time in zip(shown(journal), told.times, strict=True)
                        if event["data"]["block"] == number
                    ]
                    heard = ""
                    for data, _ in told_here:
                        assert data["position"] == len(heard)
                        heard += data["text"]
                    assert heard == "".join(text for text, _ in texts)
                    times = [time for _, time in told_here]
                    # The last one may be sooner: nothing of a block waits for longer than the block.
                    assert all(later - sooner >= window * 0.999 for sooner, later in pairwise(times[:-1]))
                nursery.cancel_scope.cancel()

    trio.run(body, clock=trio.testing.MockClock(autojump_threshold=0))
