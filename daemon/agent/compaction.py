"""Making a conversation shorter without losing the task; pure.

Old results go first, since a tool can be called again; then what was written, which is in the files; then whole turns. The first
prompt, the API's summary where it has made one, and what is being worked on stay.
"""

import re
from collections.abc import Callable
from typing import Any

import msgspec

CLEARED = "[left out to make room; call the tool again, or read the file, to see it]"
_KEPT = 2  # the last messages: a reply and the answers to it
_FIGURES = re.compile(r"(\d+) tokens > (\d+)")
_FILLED = 0.7  # of the window, once there is room again
_UNKNOWN_SHARE = 0.4  # where the API gives no figures

_Message = dict[str, Any]


def share_over(detail: str) -> float:
    """How much of a conversation has to go, by the API's own words: `prompt is too long: 210000 tokens > 200000 maximum`."""
    found = _FIGURES.search(detail)
    if found is None or (has := int(found[1])) == 0:
        return _UNKNOWN_SHARE
    return min(0.95, max(0.05, 1 - _FILLED * int(found[2]) / has))


def is_summary(block: _Message) -> bool:
    """Whether the API has summed up in it what was said before, and heeds that no more; one without content counts for nothing."""
    return bool(block["type"] == "compaction")


def since_summary(messages: list[_Message]) -> list[_Message]:
    """The first prompt, and all from the last summary on, which stands for what was said between the two."""
    for at in range(len(messages) - 1, 0, -1):
        if any(is_summary(block) and block.get("content") for block in messages[at]["content"]):
            return [messages[0], *messages[at:]]
    return messages


def compacted(messages: list[_Message], share: float) -> list[_Message] | None:
    """The conversation without that share of its text, or as much of it as can go; None where nothing can."""
    whole = _size(messages)
    goal = whole * (1 - share)
    for clear in (_without_result, _without_input):
        messages = _cleared(messages, goal, clear)
    if _size(messages) > goal:
        messages = _without_turns(messages, goal)
    return messages if _size(messages) < whole else None


def _cleared(messages: list[_Message], goal: float, clear: Callable[[_Message], _Message]) -> list[_Message]:
    """The oldest first, until there is room."""
    size, messages = _size(messages), [*messages]
    for number, message in enumerate(messages[:-_KEPT]):
        if size <= goal:
            break
        shorter = {**message, "content": [clear(block) for block in message["content"]]}
        size -= _size(message) - _size(shorter)
        messages[number] = shorter
    return messages


def _without_result(block: _Message) -> _Message:
    if block["type"] == "tool_result" and len(block["content"]) > len(CLEARED):
        return {**block, "content": CLEARED}
    return block


def _without_input(block: _Message) -> _Message:
    if block["type"] != "tool_use":
        return block
    short = {
        key: CLEARED if isinstance(value, str) and len(value) > len(CLEARED) and key != "file_path" else value
        for key, value in block["input"].items()
    }
    return {**block, "input": short}


def _without_turns(messages: list[_Message], goal: float) -> list[_Message]:
    """The first prompt and the summary, and all from a later prompt on: the first that leaves room, or the last."""
    shorter = messages
    summaries = [block for message in messages[1:2] for block in message["content"] if is_summary(block)]
    head = [*messages[:1], *([{"role": "assistant", "content": summaries}] if summaries else [])]
    for start in (number for number, message in enumerate(messages) if number and _is_prompt(message)):
        shorter = [*head, *messages[start:]]
        if _size(shorter) <= goal:
            break
    return shorter


def _is_prompt(message: _Message) -> bool:
    return message["role"] == "user" and all(block["type"] == "text" for block in message["content"])


def _size(value: Any) -> int:
    return len(msgspec.json.encode(value))
