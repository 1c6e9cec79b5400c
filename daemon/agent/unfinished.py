"""What became of the tool calls that a crash of the daemon left without an answer, as the journal tells it.

A call is journaled before it runs and its result before anything else happens, so the journal knows which of them were through.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from daemon.agent.conversation import tool_result
from daemon.journal.journal import Frames, Journal

UNKNOWN = "unknown: the daemon ended while this ran; it may or may not have taken effect"
NOT_BEGUN = "not run: the daemon ended before it came to this"
_WINDOW = 64  # events that are looked at together

_Event = dict[str, Any]


def answers(calls: list[dict[str, Any]], journal: Journal) -> list[dict[str, Any]]:
    """The true answer to each call of the last message: its result where it has one, else whether it may have run.

    Reads the journal back to where the first of the calls began, in no more than its turn. No turn may have begun since.
    """
    told: dict[str, tuple[str, bool]] = {}  # the newest event of a call decides
    otherwise = NOT_BEGUN
    for event in _newest_first(journal) if calls else ():
        if event is None:
            otherwise = UNKNOWN  # what is lost may have been a call
            break
        data = event["data"]
        match event["event"]:
            case "turn_start":
                break
            case "claude_tool_result":
                told.setdefault(data["tool_use_id"], (data["result"], data["is_error"]))
            case "approval_resolved":
                told.setdefault(data["tool_use_id"], (UNKNOWN if data["decision"] == "approve" else NOT_BEGUN, True))
            case "approval_required":
                told.setdefault(data["tool_use_id"], (NOT_BEGUN, True))
            case "claude_tool_use":
                told.setdefault(data["tool_use_id"], (UNKNOWN, True))
                if data["tool_use_id"] == calls[0]["id"]:
                    break
    found = [(call["id"], *told.get(call["id"], (otherwise, True))) for call in calls]
    return [tool_result(name, text, is_error=is_error) for name, text, is_error in found]


def _newest_first(journal: Journal) -> Iterator[_Event | None]:
    """All events, None for those that are not held any more."""
    last = journal.offset
    while last >= journal.first:
        at = after = max(journal.first - 1, last - _WINDOW)
        events: list[_Event | None] = []
        while at < last:
            chunk = journal.read(at, max_events=last - at)
            if isinstance(chunk, Frames):
                events += [msgspec.json.decode(payload) for payload in journal.payloads(at, chunk)]
                at = chunk.offset
            else:
                events.append(None)
                at = chunk.last if chunk is not None else last
        yield from reversed(events)
        last = after
    yield None
