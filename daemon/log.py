"""The log: fixed lines that users grep, or the same facts as JSON.

A line is an event name with fields; the text form is `LINES[name]` filled in. Nothing secret is ever given to the log: URLs
come without their token.
"""

import json
import logging
import re
import sys
from typing import Any, TextIO

from daemon.journal.events import utc_now

_NAME = "footlight"

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
    "url_changed": "[Sandbox:{session_id}] WARNING: WebSocket URL changed!",
    "url_old": "[Sandbox:{session_id}] WARNING: Old: {url}",
    "url_new": "[Sandbox:{session_id}] WARNING: New: {url}",
    "tunnel_lost": "[Sandbox:{session_id}] Tunnel lost: {code}: {detail}",
    "tunnel_restored": "[Sandbox:{session_id}] Tunnel restored after {seconds} s: {url}",
    "client_connected": "[Sandbox:{session_id}] WebSocket client {client_id} connected (total clients: {clients})",
    "client_disconnected": "[Sandbox:{session_id}] WebSocket client {client_id} disconnected (remaining clients: {clients})",
    "sandbox_refused": "[Sandbox:{session_id}] WARNING: no command can be run: {detail}",
    "sandbox_over": "[Sandbox:{session_id}] WARNING: {detail}",
    "journal_recovered": "[Sandbox:{session_id}] Journal recovered: {events} events; {detail}",
    "journal_unusable": "[Sandbox:{session_id}] Journal unusable: {detail}",
    "session_failed": "[Sandbox:{session_id}] Session failed: {code}: {detail}",
    "session_ended": "[Sandbox:{session_id}] Session ended: {reason}",
    "tunnel_chosen": "[API] Tunnel: {provider}: {reason}",
    "tunnel_agent": "[API] Tunnel: ngrok {version} at {binary}",
    "tunnel_up": "[API] Tunnel: the {provider} agent is up",
    "tunnel_failed": "[API] Tunnel: {code}: {detail}",
    "tunnel_stale": "[API] Tunnel: ended {processes} process(es) of an ngrok agent that an earlier daemon left behind",
    "interrupted_found": "[API] Session {session_id} was interrupted by the end of an earlier daemon",
    "shutdown": "[API] Shutting down: {sessions} session(s) to end within {grace} s",
    "sandbox_none": "[API] WARNING: --sandbox none: agents' commands run as this user, with all its files and its network",
    "sandbox_network": "[API] WARNING: --sandbox-network: agents' commands reach the network and everything on this machine's "
    "loopback, this daemon's API included",
    "sandbox_unusable": "[API] WARNING: agents can run no commands here: {detail}",
    "no_key": "[API] WARNING: no ANTHROPIC_API_KEY is set: sessions with the model {model} are refused",
    "scripted": "[API] The model is scripted: no account is used",
}

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def clean(text: str) -> str:
    """Without what could move a terminal's cursor, or break or reorder a line."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


class Log:
    """Events with fields, on the standard library's logging."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, **fields: Any) -> None:
        """For whoever looks for the cause of something; not shown."""
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """What happened."""
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """What somebody should know of."""
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, *, exc_info: BaseException | None = None, **fields: Any) -> None:
        """What failed, with the traceback of an error that was not expected."""
        self._write(logging.ERROR, event, fields, exc_info)

    def _write(self, level: int, event: str, fields: dict[str, Any], error: BaseException | None = None) -> None:
        self._logger.log(level, event, exc_info=error, extra={"fields": fields})


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = {key: clean(str(value)) for key, value in vars(record)["fields"].items()}
        if record.msg in LINES:
            line = LINES[record.msg].format(**fields)
        else:
            line = " ".join([record.msg, *(f"{key}={value}" for key, value in fields.items())])
        if record.levelno > logging.INFO and "WARNING" not in line:
            line = f"{record.levelname}: {line}"
        error = self.formatException(record.exc_info).split("\n") if record.exc_info else []
        return "\n".join([line, *map(clean, error)])


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        facts = {
            "event": record.msg,
            **vars(record)["fields"],
            "level": record.levelname.lower(),
            "timestamp": utc_now(),
        }
        if record.exc_info:
            facts["exception"] = self.formatException(record.exc_info)
        return json.dumps(facts, default=str)


class _Lines(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """A line that cannot be written (a closed terminal, a full disk) is lost and ends nothing."""


def configure(log_format: str, *, out: TextIO | None = None, quiet: bool = False) -> None:
    """Send the log to `out` (stderr where not given), as `text` or `json`; `quiet` keeps warnings and errors alone."""
    handler = _Lines(out or sys.stderr)
    handler.setFormatter(_Json() if log_format == "json" else _Text())
    logger = logging.getLogger(_NAME)
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(logging.WARNING if quiet else logging.INFO)


log = Log(_NAME)
