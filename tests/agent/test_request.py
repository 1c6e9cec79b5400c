"""What one request says."""

from typing import Any

import pytest

from daemon.agent.request import context_edits, request, thinking_of
from daemon.errors import ConfigError
from daemon.testing import test_config as make_config

MARK = {"type": "ephemeral"}


def asked(folder, messages: list[dict[str, Any]], **settings: Any) -> dict[str, Any]:
    return request(make_config(folder, **settings), model="m", system="be good", messages=messages, tools=())


def message(role: str, *texts: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text} for text in texts]}


def test_marks_of_the_cache_move_with_the_conversation(tmp_path):
    messages = [message("user", "a"), message("assistant", "b"), message("user", "c", "d"), message("assistant", "e")]
    messages.append(message("user", "f"))
    found = asked(tmp_path, messages)
    marked = [
        (number, block["text"])
        for number, said in enumerate(found["messages"])
        for block in said["content"]
        if block.get("cache_control") == MARK
    ]
    assert marked == [(2, "d"), (4, "f")]
    assert found["system"] == [{"type": "text", "text": "be good", "cache_control": MARK}]
    assert "cache_control" not in messages[4]["content"][0]  # what is kept has none


@pytest.mark.parametrize(
    ("setting", "thinking"),
    [
        ("auto", None),
        ("off", {"type": "disabled"}),
        ("adaptive", {"type": "adaptive", "display": "summarized"}),
        ("1024", {"type": "enabled", "budget_tokens": 1024}),
    ],
)
def test_thinking_is_asked_for_as_it_is_set(tmp_path, setting, thinking):
    assert asked(tmp_path, [], thinking=setting).get("thinking") == thinking


@pytest.mark.parametrize("setting", ["", "on", "1023", "16000", "-5", "1e4"])
def test_thinking_that_the_api_would_refuse_is_no_setting(tmp_path, setting):
    with pytest.raises(ConfigError, match="--thinking"):
        thinking_of(make_config(tmp_path, thinking=setting, max_tokens=16_000))


@pytest.mark.parametrize("sums_up", [False, True])
def test_edits_of_the_context_are_known_to_the_sdk(tmp_path, sums_up):
    from anthropic.types import AnthropicBetaParam
    from anthropic.types.beta import BetaContextManagementConfigParam
    from pydantic import TypeAdapter

    found = context_edits(make_config(tmp_path), sums_up=sums_up)
    assert str(found["betas"][0]) in str(AnthropicBetaParam)
    adapter: TypeAdapter[Any] = TypeAdapter(BetaContextManagementConfigParam)
    [edit] = list(adapter.validate_python(found["context_management"])["edits"])
    assert [edit] == found["context_management"]["edits"]  # a key that it does not know would be missing
    if sums_up:
        assert edit["trigger"]["value"] >= 50_000  # the API takes no less
    else:
        assert edit["clear_at_least"]["value"] < edit["trigger"]["value"]


def test_summary_is_said_in_words_to_who_knows_no_such_block(tmp_path):
    summary = {"type": "compaction", "content": "so far", "encrypted_content": "x"}
    failed = {"type": "compaction", "content": None}
    messages = [message("user", "a"), {"role": "assistant", "content": [summary]}, message("user", "b")]
    messages.append({"role": "assistant", "content": [failed]})
    assert asked(tmp_path, messages)["messages"][1] == message("assistant", "so far")
    assert len(asked(tmp_path, messages)["messages"]) == 3  # nothing is no message
    as_it_is = request(make_config(tmp_path), model="m", system="", messages=messages, tools=(), sums_up=True)
    assert as_it_is["messages"][1] == messages[1]
