"""A conversation made shorter without losing the task."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.agent.compaction import CLEARED, compacted, share_over, since_summary
from tests.agent.stage import check_conversation

LONG = "x" * 2000


def prompt(text: str) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "text", "text": text}]}


def said(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def call(number: int, written: str, result: str) -> list[dict[str, Any]]:
    use = {"type": "tool_use", "id": f"t{number}", "name": "write", "input": {"file_path": "a", "content": written}}
    answer = {"type": "tool_result", "tool_use_id": f"t{number}", "content": result, "is_error": False}
    return [{"role": "assistant", "content": [use]}, {"role": "user", "content": [answer]}]


def size(messages: list[dict[str, Any]]) -> int:
    return len(msgspec.json.encode(messages))


def test_oldest_results_go_first_and_no_more_than_needed():
    messages = [prompt("task"), *call(1, "a", LONG), *call(2, "b", LONG), *call(3, "c", LONG)]
    shorter = compacted(messages, 0.2)
    assert shorter is not None
    assert shorter[2]["content"][0]["content"] == CLEARED
    assert shorter[:2] + shorter[3:] == messages[:2] + messages[3:]
    assert messages[2]["content"][0]["content"] == LONG  # what is kept stays whole


def test_what_was_written_goes_when_results_are_not_enough():
    messages = [prompt("task"), *call(1, LONG, LONG), *call(2, LONG, "short"), *call(3, LONG, LONG)]
    shorter = compacted(messages, 0.5)
    assert shorter is not None
    assert shorter[1]["content"][0]["input"] == {"file_path": "a", "content": CLEARED}
    assert shorter[-2:] == messages[-2:]  # what is being worked on
    check_conversation(shorter)


def test_turns_go_last_and_the_first_prompt_stays():
    messages = [prompt("task"), said(LONG), prompt("two"), said(LONG), prompt("three"), said("ok"), prompt("four")]
    assert compacted(messages, 0.3) == [messages[0], *messages[2:]]
    assert compacted(messages, 0.9) == [messages[0], *messages[4:]]


def summed_up(text: str | None, *more: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "compaction", "content": text}, *more]}


def test_summary_stands_for_what_was_said_between_the_first_prompt_and_it():
    messages = [prompt("task"), said("a"), prompt("b"), summed_up("first"), prompt("c"), summed_up("last"), prompt("d")]
    assert since_summary(messages) == [messages[0], *messages[5:]]
    assert since_summary([*messages[:5], summed_up(None)]) == [messages[0], *messages[3:5], summed_up(None)]
    assert since_summary(messages[:3]) == messages[:3]


def test_summary_stays_when_turns_go():
    (use, answer) = call(1, "a", "b")
    messages = [prompt("task"), summed_up("so far", *use["content"]), answer, said(LONG), prompt("two"), said("ok")]
    assert compacted(messages, 0.9) == [messages[0], summed_up("so far"), *messages[4:]]


def test_conversation_of_which_nothing_can_go_is_told():
    assert compacted([prompt(LONG)], 0.5) is None
    assert compacted([prompt("task"), *call(1, LONG, LONG)], 0.5) is None
    assert compacted([], 0.5) is None


@pytest.mark.parametrize(
    ("detail", "share"),
    [
        ("400: prompt is too long: 200000 tokens > 200000 maximum", 0.3),
        ("prompt is too long: 400000 tokens > 200000 maximum", 0.65),
        ("prompt is too long: 999999999 tokens > 1 maximum", 0.95),
        ("prompt is too long: 0 tokens > 0 maximum", 0.4),
        ("prompt is too long", 0.4),
        ("", 0.4),
    ],
)
def test_share_follows_from_what_the_api_says(detail, share):
    assert share_over(detail) == pytest.approx(share)


_TURNS = st.lists(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 3000)), max_size=4), min_size=1, max_size=5)


@given(turns=_TURNS, share=st.floats(0.05, 0.95))
def test_result_is_shorter_and_still_a_conversation(turns, share):
    messages: list[dict[str, Any]] = []
    for number, calls in enumerate(turns):
        messages.append(prompt(f"prompt {number}"))
        for at, (written, result) in enumerate(calls):
            messages += call(number * 10 + at, "x" * written, "y" * (result + 1))
        messages.append(said("done"))
    messages.append(prompt("last"))
    shorter = compacted(messages, share)
    if shorter is not None:
        assert size(shorter) < size(messages)
        assert (shorter[0], shorter[-1]) == (messages[0], messages[-1])
        check_conversation(shorter)
