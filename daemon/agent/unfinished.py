"""What a crash of the daemon left of a turn, as the journal tells it: how to end it, and what became of its tool calls.

A call is journaled before it runs and its result before anything else happens, so the journal knows which of them were through.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from daemon.agent.conversation import tool_result
from daemon.journal.journal import Frames, Journal
from daemon.sessions.record import Usage

UNKNOWN = "unknown: the daemon ended while this ran; it may or may not have taken effect"
NOT_BEGUN = "not run: the daemon ended before it came to this"
_CRASHED = "the daemon ended before anybody answered"
_WINDOW = 64  # events that are looked at together

_Event = dict[str, Any]


class _Call(NamedTuple):
    """What the newest event of a call says of it."""

    newest: str
    result: str
    is_error: bool = True


def answers(calls: list[dict[str, Any]], journal: Journal) -> list[dict[str, Any]]:
    """The true answer to each call of the last message: its result where it has one, else whether it may have run.

    Reads the journal back to where the first of the calls began, in no more than its turn. No turn may have begun since.
    """
    told: dict[str, _Call] = {}
    otherwise = NOT_BEGUN
    for event in _newest_first(journal) if calls else ():
        if event is None:
            otherwise = UNKNOWN  # what is lost may have been a call
            break
        _note(told, event)
        if event["event"] == "turn_start" or _begins(event, calls[0]["id"]):
            break
    found = [(call["id"], told.get(call["id"], _Call("", otherwise))) for call in calls]
    return [tool_result(name, call.result, is_error=call.is_error) for name, call in found]


def end_turn(journal: Journal) -> None:
    """Write how the turn ended that a crash cut, if one was: each of its calls gets a result, and it its `turn_complete`.

    What the turn used up is not known: its usage counts nothing. Killed in the middle, it can be called again.
    """
    told: dict[str, _Call] = {}
    newest: _Event | None = None
    for event in _newest_first(journal):
        if event is None or event["event"] in {"turn_complete", "session_end"}:
            return
        newest = newest or event
        _note(told, event)
        if event["event"] == "turn_start":
            break
    else:
        return
    turn = event["data"]["turn"]
    for name, call in reversed(told.items()):
        if call.newest == "approval_required":
            journal.append("approval_resolved", tool_use_id=name, decision="cancelled", client_id=None, reason=_CRASHED)
        if call.newest != "claude_tool_result":
            said = {"turn": turn, "tool_use_id": name, "result": call.result, "is_error": True}
            journal.append("claude_tool_result", **said, duration_ms=0)
    lasted = datetime.fromisoformat(newest["timestamp"]) - datetime.fromisoformat(event["timestamp"])
    journal.append(
        "turn_complete",
        turn=turn,
        stop_reason="interrupted",
        is_error=False,
        duration_ms=max(0, lasted // timedelta(milliseconds=1)),
        usage=Usage(),
    )


def _note(told: dict[str, _Call], event: _Event) -> None:
    """Remember an event of a call, unless a newer one is known."""
    kind, data = event["event"], event["data"]
    match kind:
        case "claude_tool_result":
            call = _Call(kind, data["result"], data["is_error"])
        case "approval_resolved":
            call = _Call(kind, UNKNOWN if data["decision"] == "approve" else NOT_BEGUN)
        case "approval_required":
            call = _Call(kind, NOT_BEGUN)
        case "claude_tool_use":
            call = _Call(kind, UNKNOWN)
        case _:
            return
    told.setdefault(data["tool_use_id"], call)


def _begins(event: _Event, tool_use_id: str) -> bool:
    return bool(event["event"] == "claude_tool_use" and event["data"]["tool_use_id"] == tool_use_id)


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
