"""The kinds of events and their wire form; pure.

One event is one JSON object: `session_id, event, timestamp, data`, and for a journaled one `offset`.
"""

import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

from daemon.errors import Bug

# kind -> the names in its `data`, in the contract's order.
JOURNALED: dict[str, tuple[str, ...]] = {
    "session_start": ("prompt", "model", "work_dir"),
    "websocket_ready": ("websocket_url", "session_id"),
    "websocket_url_changed": ("old", "new"),
    "tunnel_lost": ("code", "detail"),
    "tunnel_restored": ("websocket_url", "seconds"),
    "prompt_queued": ("message_id", "prompt", "position"),
    "turn_start": ("turn", "prompt", "message_id"),
    "claude_text": ("turn", "block", "text"),
    "claude_thinking": ("turn", "block", "thinking"),
    "claude_tool_use": ("turn", "tool_use_id", "tool", "input"),
    "approval_required": ("tool_use_id", "tool", "input"),
    "approval_resolved": ("tool_use_id", "decision", "client_id", "reason"),
    "claude_tool_result": ("turn", "tool_use_id", "result", "is_error", "duration_ms"),
    "files_changed": ("paths",),
    "pages_discovered": ("pages", "total_pages"),
    "preview_ready": ("preview_url",),
    "preview_error": ("path", "message", "source", "line", "column"),
    "turn_retry": ("turn", "attempt", "reason", "blocks"),
    "turn_complete": ("turn", "stop_reason", "is_error", "duration_ms", "usage"),
    "ready_for_input": ("turn", "queued_prompts"),
    "budget_reached": ("kind", "limit", "used"),
    "agent_error": ("error", "error_type", "retryable"),
    "session_end": ("reason", "turn_count", "detail", "processes_killed"),
}

LIVE_ONLY: dict[str, tuple[str, ...]] = {
    "connected": ("client_id", "role", "epoch", "offset", "connected_clients", "status", "pending"),
    "replay_reset": ("reason", "epoch"),
    "replay_gap": ("from", "to"),
    "client_joined": ("client_id", "role", "connected_clients"),
    "client_left": ("client_id", "role", "connected_clients"),
    "claude_text_delta": ("turn", "block", "position", "text"),
    "claude_thinking_delta": ("turn", "block", "position", "text"),
    "tool_output": ("tool_use_id", "position", "text"),
    "ack": ("type",),
    "error": ("code", "detail"),
    "pong": (),
}

# An ack names what it answers: these may follow its `type`.
_ACK_EXTRAS = frozenset({"message_id", "position", "accepted", "tool_use_id"})


class _Live(msgspec.Struct, gc=False):
    """The wire form, without an offset."""

    session_id: str
    event: str
    timestamp: str
    data: dict[str, Any]


class _Journaled(_Live, gc=False):
    """The wire form of what is journaled."""

    offset: int


_encode = msgspec.json.Encoder().encode


def utc_now() -> str:
    """Wall time as RFC 3339 with milliseconds; only ever shown, never computed with."""
    return _to_the_millisecond(time.time_ns() // 1_000_000)


# Formatting takes longer than writing an event does, and events come in bursts: many share a second, and some a millisecond.
@lru_cache(maxsize=1)
def _to_the_millisecond(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{_to_the_second(seconds)}.{rest:03d}Z"


@lru_cache(maxsize=1)
def _to_the_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def encode(session_id: str, kind: str, data: dict[str, Any], offset: int | None) -> bytes:
    """The event as JSON. A kind or a field that the contract does not have raises `Bug`."""
    fields = (JOURNALED if offset is not None else LIVE_ONLY).get(kind)
    if fields is None:
        raise Bug(f"no such {'journaled' if offset is not None else 'live'} event: {kind}")
    if tuple(data) != fields and not (kind == "ack" and data.keys() - _ACK_EXTRAS == {"type"}):
        raise Bug(f"{kind} takes {fields}, not {tuple(data)}")
    if offset is None:
        return _encode(_Live(session_id, kind, utc_now(), data))
    return _encode(_Journaled(session_id, kind, utc_now(), data, offset))
