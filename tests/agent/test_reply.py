"""A reply, put together from the API's raw events."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.agent.reply import Reply
from daemon.sessions.record import Usage


class Heard:
    """A sink that writes down what it is told."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []

    def opened(self, index: int, kind: str) -> None:
        self.said.append(("opened", index, kind))

    def grew(self, text: str) -> None:
        self.said.append(("grew", text))

    def closed(self) -> None:
        self.said.append(("closed",))


def start(index: int, **block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int, **delta: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def stop(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def text(index: int, *parts: str) -> list[dict[str, Any]]:
    grown = [delta(index, type="text_delta", text=part) for part in parts]
    return [start(index, type="text", text=""), *grown, stop(index)]


def tool(index: int, *parts: str, name: str = "write") -> list[dict[str, Any]]:
    grown = [delta(index, type="input_json_delta", partial_json=part) for part in parts]
    return [start(index, type="tool_use", id=f"toolu_{index}", name=name, input={}), *grown, stop(index)]


def thinking(index: int, words: str, signature: str | None) -> list[dict[str, Any]]:
    signed = [delta(index, type="signature_delta", signature=signature)] if signature else []
    begun = start(index, type="thinking", thinking="", signature="")
    return [begun, delta(index, type="thinking_delta", thinking=words), *signed, stop(index)]


def end(stop_reason: str = "end_turn", **usage: int) -> list[dict[str, Any]]:
    over = {"stop_reason": stop_reason, "stop_sequence": None}
    return [
        {"type": "message_delta", "delta": over, "usage": {"output_tokens": 5, **usage}},
        {"type": "message_stop"},
    ]


def begin(**usage: int) -> dict[str, Any]:
    message = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None,
        "stop_sequence": None, "usage": {"input_tokens": 7, "output_tokens": 1, **usage},
    }  # fmt: skip
    return {"type": "message_start", "message": message}


def fed(*events: dict[str, Any]) -> tuple[Reply, Heard]:
    heard = Heard()
    reply = Reply(heard)
    for event in events:
        reply.feed(event)
    return reply, heard


def test_whole_answer_is_put_together():
    answer = [*thinking(0, "hm", "c2ln"), *text(1, "One", " two"), *tool(2, '{"a"', ': "b"}')]
    reply, heard = fed(begin(), *answer, *end("tool_use"))
    assert reply.content() == [
        {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
        {"type": "text", "text": "One two"},
        {"type": "tool_use", "id": "toolu_2", "name": "write", "input": {"a": "b"}},
    ]
    assert reply.tool_calls() == reply.content()[2:]
    assert (reply.stop_reason, reply.complete) == ("tool_use", True)
    assert heard.said == [
        ("opened", 0, "thinking"), ("grew", "hm"), ("closed",),
        ("opened", 1, "text"), ("grew", "One"), ("grew", " two"), ("closed",),
    ]  # fmt: skip


SUMMARY = {"type": "compaction", "content": "so far", "encrypted_content": "opaque", "signature": "s"}


def summary(index: int) -> list[dict[str, Any]]:
    grown = delta(index, type="compaction_delta", content="so far", encrypted_content="opaque")
    return [start(index, type="compaction", content=None, signature="s"), grown, stop(index)]


def test_block_of_another_kind_is_carried_through():
    reply, heard = fed(
        begin(), *summary(0), start(1, type="redacted_thinking", data="x"), stop(1), *text(2, "On."), *end()
    )
    told = [SUMMARY, {"type": "redacted_thinking", "data": "x"}, {"type": "text", "text": "On."}]
    assert reply.content() == told
    assert heard.said == [("opened", 2, "text"), ("grew", "On."), ("closed",)]


def test_summary_under_way_is_known_and_not_said_back():
    reply, _ = fed(begin(), *summary(0)[:2])
    assert (reply.sums_up, reply.content()) == (True, [])
    reply.feed(stop(0))
    assert (reply.sums_up, reply.content()) == (False, [SUMMARY])


def test_summary_that_failed_is_said_back_as_nothing():
    failed = [start(0, type="compaction", content=None), delta(0, type="compaction_delta", content=None), stop(0)]
    assert fed(begin(), *failed, *end())[0].content() == [{"type": "compaction"}]


def test_usage_counts_what_summing_up_took_besides():
    told = [{"type": "compaction", "input_tokens": 90, "output_tokens": 4}, {"type": "message", "input_tokens": 7}] * 2
    over = [*end()]
    over[0]["usage"]["iterations"] = told
    reply, _ = fed(begin(), *text(0, "a"), *over)
    assert reply.usage == Usage(input_tokens=7 + 180, output_tokens=5 + 8)


def test_usage_is_the_last_count_and_not_a_sum():
    reply, _ = fed(begin(cache_read_input_tokens=3), *text(0, "a"), *end(output_tokens=9, input_tokens=8))
    assert reply.usage == Usage(input_tokens=8, output_tokens=9, cache_read_input_tokens=3)


def test_answer_without_its_end_is_not_complete():
    reply, _ = fed(begin(), *text(0, "a"), end()[0])
    assert not reply.complete


def test_text_that_was_cut_is_kept():
    reply, _ = fed(begin(), *text(0, "a", "b")[:-1])
    assert reply.content() == [{"type": "text", "text": "ab"}]


def test_half_a_tool_call_is_no_call():
    reply, _ = fed(begin(), *text(0, "a"), *tool(1, '{"a": "b"}')[:-1])
    assert [block["type"] for block in reply.content()] == ["text"]
    assert reply.tool_calls() == []


@pytest.mark.parametrize("whole", [True, False])
def test_thinking_without_its_signature_is_not_said_back(whole):
    events = thinking(0, "hm", None)
    reply, _ = fed(begin(), *(events if whole else events[:-1]))
    assert reply.content() == []


@pytest.mark.parametrize("parts", [(), ("",), (" ", "\n\n")])
def test_text_that_is_only_space_is_not_said_back(parts):
    reply, _ = fed(begin(), *text(0, *parts), *tool(1), *end("tool_use"))
    assert [block["type"] for block in reply.content()] == ["tool_use"]


def test_tool_without_input_gets_an_empty_one():
    reply, _ = fed(begin(), *tool(0), *end("tool_use"))
    assert reply.tool_calls()[0]["input"] == {}


def test_text_in_the_start_of_a_block_counts():
    reply, heard = fed(begin(), start(0, type="text", text="One"), *text(0, " two")[1:], *end())
    assert reply.content() == [{"type": "text", "text": "One two"}]
    assert heard.said == [("opened", 0, "text"), ("grew", "One"), ("grew", " two"), ("closed",)]


def test_half_a_surrogate_pair_is_made_text():
    reply, heard = fed(begin(), *text(0, "a\ud83d", "b"), *end())
    assert reply.content() == [{"type": "text", "text": "a?b"}]
    msgspec.json.encode(heard.said)  # the journal can hold it


@pytest.mark.parametrize("json", ['{"a": ', "[1]", '"text"', "12", '{"a": "\\ud800"}', "null"])
def test_input_that_is_no_object_is_malformed(json):
    with pytest.raises(msgspec.DecodeError):
        fed(begin(), *tool(0, json), *end("tool_use"))


@pytest.mark.parametrize("stop_reason", ["max_tokens", "model_context_window_exceeded"])
@pytest.mark.parametrize("cut", [tool(2, '{"a": "b'), tool(2), tool(2, '{"a": "b"')[:-1]])
def test_call_that_ran_out_of_tokens_is_named_and_the_answer_is_whole(stop_reason, cut):
    reply, _ = fed(begin(), *text(0, "a"), *tool(1, '{"a": "b"}'), *cut, *end(stop_reason))
    assert reply.complete
    assert reply.cut == {"toolu_2"}
    assert [call["input"] for call in reply.tool_calls()] == [{"a": "b"}, {}]


def test_whole_call_of_an_answer_that_ran_out_of_tokens_is_a_call():
    reply, _ = fed(begin(), *tool(0), *tool(1, '{"a": "b"}'), *text(2, "a"), *end("max_tokens"))
    assert reply.cut == set()
    assert len(reply.tool_calls()) == 2


def test_event_for_a_block_that_never_began_is_malformed():
    with pytest.raises(KeyError):
        fed(begin(), delta(3, type="text_delta", text="a"))


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(value=st.dictionaries(st.text(max_size=5), _VALUES, max_size=4), cuts=st.lists(st.integers(0, 400), max_size=10))
def test_input_is_the_same_however_its_json_is_cut(value, cuts):
    whole = msgspec.json.encode(value).decode()
    edges = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    parts = [whole[edges[at] : edges[at + 1]] for at in range(len(edges) - 1)]
    reply, heard = fed(begin(), *tool(0, *parts), *end("tool_use"))
    assert reply.tool_calls()[0]["input"] == value
    assert heard.said == []


@given(parts=st.lists(st.text(max_size=5), max_size=10), seen=st.integers(0, 12))
def test_text_is_the_sum_of_what_was_heard_wherever_it_is_cut(parts, seen):
    reply, heard = fed(begin(), *text(0, *parts)[:seen])
    grown = "".join(said[1] for said in heard.said if said[0] == "grew")
    assert grown == "".join(parts[: max(0, seen - 1)])
    assert reply.content() == ([{"type": "text", "text": grown}] if grown.strip() else [])
