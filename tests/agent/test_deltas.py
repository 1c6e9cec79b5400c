"""Deltas: what waits is one delta; no character lost or told twice."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.agent.deltas import Deltas
from daemon.journal.journal import Journal, open_journal
from daemon.journal.present import Present
from tests.agent.stage import shown


class Told:
    """Deltas of one journal."""

    def __init__(self, journal: Journal, *, merged: bool = True) -> None:
        self.journal = journal
        journal.ring.join()  # for `shown`
        self.present = Present()
        self.deltas = Deltas(journal, self.present, merged=merged)

    def texts(self) -> list[str]:
        return [event["data"]["text"] for event in shown(self.journal)]


@pytest.fixture
def told(tmp_path) -> Iterator[Told]:
    with open_journal("abc", tmp_path, limit=1 << 20) as (journal, _):
        yield Told(journal)


async def test_delta_names_its_turn_its_block_and_where_it_stands(told):
    told.deltas.open(3, 7, "text")
    told.deltas.add("a")
    told.deltas.send()
    told.deltas.add("b")
    told.deltas.send()
    first, second = shown(told.journal)
    assert first["event"] == "claude_text_delta"
    assert first["data"] == {"turn": 3, "block": 7, "position": 0, "text": "a"}
    assert second["data"] == {"turn": 3, "block": 7, "position": 1, "text": "b"}


async def test_thinking_has_its_own_kind(told):
    told.deltas.open(1, 0, "thinking")
    told.deltas.add("hm")
    told.deltas.send()
    assert shown(told.journal)[0]["event"] == "claude_thinking_delta"


async def test_nothing_waits_where_nothing_is_merged(told):
    told = Told(told.journal, merged=False)
    told.deltas.open(1, 0, "text")
    told.deltas.add("a")
    told.deltas.add("b")
    assert told.texts() == ["a", "b"]


async def test_what_waits_is_sent_as_one_and_nothing_as_none(told):
    told.deltas.send()
    told.deltas.open(1, 0, "text")
    told.deltas.send()
    for text in ("a", "b", "c"):
        told.deltas.add(text)
    told.deltas.send()
    told.deltas.send()
    assert told.texts() == ["abc"]


async def test_closing_sends_what_waits_and_gives_all_text(told):
    told.deltas.open(1, 0, "text")
    told.deltas.add("a")
    told.deltas.send()
    told.deltas.add("b")
    block = told.deltas.close()
    assert block is not None
    assert "".join(block.parts) == "ab"
    assert told.texts() == ["a", "b"]
    assert told.deltas.close() is None


async def test_late_client_is_told_everything_that_others_were_sent(told):
    told.deltas.open(1, 0, "text")
    for text in ("ab", "c"):
        told.deltas.add(text)
        told.deltas.send()
    told.deltas.add("d")
    assert told.present.deltas() == [("claude_text_delta", {"turn": 1, "block": 0, "position": 0, "text": "abc"})]
    assert len(told.journal.late_frames()) == 1
    told.deltas.send()
    assert shown(told.journal)[-1]["data"]["position"] == 3  # where the late one's text ends


async def test_nothing_is_late_between_blocks(told):
    assert told.journal.late_frames() == []
    told.deltas.open(1, 0, "text")
    assert told.journal.late_frames() == []


@given(blocks=st.lists(st.lists(st.tuples(st.text(min_size=1, max_size=3), st.booleans()))))
def test_deltas_are_gapless_and_add_up_whenever_they_are_sent(tmp_path_factory, blocks):
    with open_journal("abc", tmp_path_factory.mktemp("j"), limit=1 << 20) as (journal, _):
        told = Told(journal)
        for number, texts in enumerate(blocks):
            told.deltas.open(1, number, "text")
            for text, sent in texts:
                told.deltas.add(text)
                if sent:
                    told.deltas.send()
            closed = told.deltas.close()
            assert closed is not None
            heard = ""
            for event in shown(journal):
                if event["data"]["block"] == number:
                    assert event["data"]["position"] == len(heard)
                    heard += event["data"]["text"]
            assert heard == "".join(closed.parts) == "".join(text for text, _ in texts)
