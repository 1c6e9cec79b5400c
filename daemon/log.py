"""The log: fixed lines that users grep, or the same facts as JSON.

A line is an event name with fields; the text form is `LINES[name]` filled in. Nothing secret is ever given to the log: URLs
come without their token.
"""

import logging
import re
import sys
from contextlib import suppress
from typing import Any, TextIO, cast

import structlog

LINES = {
    "request": "[API] {method} {path} - session_id: {session_id}",
    "new_session": "[API] New session: {new}",
    "creating": "[API] Creating new session {session_id}",
    "reopening": "[API] Reopening session {session_id}",
    "existing": "[API] Session {session_id} already running, returning existing session",
    "spawning": "[API] Spawning sandbox for session {session_id}",
    "spawned": "[API] Sandbox spawned with ID: {run_id}",
    "tunnel_created": "[Sandbox:{session_id}] {provider} websocket tunnel created: {url}",
    "tunnel_stable": "[Sandbox:{session_id}] This tunnel will remain stable for the duration of this session",
    "url_published": "[Sandbox:{session_id}] Updated session with WebSocket URL",
    "client_connected": "[Sandbox:{session_id}] WebSocket client {client_id} connected (total clients: {clients})",
    "client_disconnected": "[Sandbox:{session_id}] WebSocket client {client_id} disconnected (remaining clients: {clients})",
    "journal_recovered": "[Sandbox:{session_id}] Journal recovered: {events} events; {detail}",
    "journal_unusable": "[Sandbox:{session_id}] Journal unusable: {detail}",
    "session_failed": "[Sandbox:{session_id}] Session failed: {code}: {detail}",
    "session_ended": "[Sandbox:{session_id}] Session ended: {reason}",
    "interrupted_found": "[API] Session {session_id} was interrupted by the end of an earlier daemon",
    "shutdown": "[API] Shutting down: {sessions} session(s) to end within {grace} s",
    "scripted": "[API] The model is scripted: no account is used",
}

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def clean(text: str) -> str:
    """Without what could move a terminal's cursor, or break or reorder a line."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def _as_line(_logger: Any, _method: str, event: dict[str, Any]) -> str:
    name = event.pop("event")
    level = event.pop("level", "info")
    error = event.pop("exception", None)
    if name in LINES:
        line = LINES[name].format(**{key: clean(str(value)) for key, value in event.items()})
    else:
        line = " ".join([name, *(f"{key}={clean(str(value))}" for key, value in event.items())])
    if level not in {"info", "debug"}:
        line = line if "WARNING" in line else f"{level.upper()}: {line}"
    return "\n".join([line, *map(clean, error.split("\n"))]) if error else line


class _Out:
    """Where lines go; one that cannot be written (a closed terminal, a full disk) is lost and ends nothing."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, text: str) -> None:
        with suppress(OSError, ValueError):  # ValueError: the file was closed
            self._out.write(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._out.flush()


def configure(log_format: str, *, out: TextIO | None = None, quiet: bool = False) -> None:
    """Send the log to `out` (stderr where not given), as `text` or `json`; `quiet` keeps warnings and errors alone."""
    as_json = log_format == "json"
    processors: list[Any] = [structlog.processors.add_log_level, structlog.processors.format_exc_info]
    if as_json:
        processors += [structlog.processors.TimeStamper(fmt="iso", utc=True), structlog.processors.JSONRenderer()]
    else:
        processors.append(_as_line)
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING if quiet else logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Out(out or sys.stderr))),
        cache_logger_on_first_use=False,
    )
