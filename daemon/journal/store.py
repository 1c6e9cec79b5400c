"""SQLite for what changes a few times a turn: session records, conversations, message ids.

Calls are synchronous on the Trio thread: one commit in WAL mode takes less than 0.1 ms, a thread's round trip costs more, and
without an await between reading and writing nothing can come between. What may take long, moving the log into the database
with its fsync, is done by `run_checkpoints` in a thread on a connection of its own.
"""

from pathlib import Path
from typing import Any

import apsw
import msgspec
import trio

_SCHEMA = """
create table if not exists sessions (
    number integer primary key,          -- order of creation
    session_id text not null unique,
    status text not null,
    record blob not null                 -- daemon.sessions.record.Record as JSON
);
create table if not exists messages (
    session_id text not null,
    number integer not null,
    message blob not null,               -- one message of the Messages API as JSON
    primary key (session_id, number)
) without rowid;
create table if not exists message_ids (
    session_id text not null,
    message_id text not null,
    started integer not null default 0,  -- whether its turn has begun
    primary key (session_id, message_id)
) without rowid;
"""
_CHECKPOINT_PAGES = 1000  # 4 MB of log


class Store:
    """The database of one state directory, made where it is absent."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db = apsw.Connection(str(path))
        for setting in ("journal_mode = wal", "synchronous = normal", "wal_autocheckpoint = 0"):
            self._db.execute(f"pragma {setting}")  # one by one: apsw runs a text only up to its first row
        self._db.execute(_SCHEMA)
        self._log_grew = trio.Event()
        self._db.set_wal_hook(self._on_commit)

    def close(self) -> None:
        """Close the database; idempotent."""
        self._db.close()

    # --- session records

    def save(self, session_id: str, status: str, record: bytes) -> None:
        """Keep a session's record."""
        self._db.execute(
            "insert into sessions (session_id, status, record) values (?1, ?2, ?3)"
            " on conflict (session_id) do update set status = ?2, record = ?3",
            (session_id, status, record),
        )

    def load(self, session_id: str) -> bytes | None:
        """A session's record."""
        record: bytes | None = self._value("select record from sessions where session_id = ?", (session_id,))
        return record

    def records(self, *, statuses: list[str], before: int | None, limit: int) -> list[tuple[int, bytes]]:
        """Newest first, each with its number, which is the cursor for the next page."""
        where, values = _where(statuses)
        rows = self._db.execute(
            f"select number, record from sessions where {where} and number < ? order by number desc limit ?",  # noqa: S608
            (*values, before if before is not None else 1 << 62, limit),
        )
        return list(rows)

    def count(self, statuses: list[str]) -> int:
        """How many sessions have one of these statuses; all for an empty list."""
        where, values = _where(statuses)
        return int(self._value(f"select count(*) from sessions where {where}", values) or 0)  # noqa: S608

    def delete(self, session_id: str) -> None:
        """Forget a session."""
        with self._db:
            for table in ("sessions", "messages", "message_ids"):
                self._db.execute(f"delete from {table} where session_id = ?", (session_id,))  # noqa: S608

    # --- conversations

    def conversation(self, session_id: str) -> list[dict[str, Any]]:
        """All messages in order."""
        rows = self._db.execute("select message from messages where session_id = ? order by number", (session_id,))
        return [msgspec.json.decode(message) for (message,) in rows]

    def add_message(self, session_id: str, number: int, message: dict[str, Any]) -> None:
        """Keep the message with this number, counted from 0; the last one may be replaced."""
        self._db.execute(
            "insert or replace into messages values (?, ?, ?)", (session_id, number, msgspec.json.encode(message))
        )

    # --- message ids

    def seen(self, session_id: str, message_id: str) -> bool:
        """Whether this message was accepted before."""
        return (
            self._value("select 1 from message_ids where session_id = ? and message_id = ?", (session_id, message_id))
            is not None
        )

    def accept(self, session_id: str, message_id: str) -> None:
        """Remember a message."""
        self._db.execute(
            "insert or ignore into message_ids (session_id, message_id) values (?, ?)", (session_id, message_id)
        )

    def start_message(self, session_id: str, message_id: str) -> None:
        """Its turn begins: from now on it is never run again."""
        self._db.execute(
            "update message_ids set started = 1 where session_id = ? and message_id = ?", (session_id, message_id)
        )

    def forget_unstarted(self, session_id: str) -> None:
        """Messages that never got their turn may be sent again."""
        self._db.execute("delete from message_ids where session_id = ? and not started", (session_id,))

    # --- the log

    async def run_checkpoints(self) -> None:
        """Move the write-ahead log into the database when it has grown, in a thread; until cancelled."""
        while True:
            await self._log_grew.wait()
            self._log_grew = trio.Event()
            await trio.to_thread.run_sync(_checkpoint, self._path)

    def _on_commit(self, _db: apsw.Connection, _name: str, pages: int) -> int:
        if pages >= _CHECKPOINT_PAGES:
            self._log_grew.set()
        return apsw.SQLITE_OK

    def _value(self, query: str, values: tuple[Any, ...]) -> Any:
        row = self._db.execute(query, values).fetchone()
        return row[0] if row else None


def _where(statuses: list[str]) -> tuple[str, tuple[str, ...]]:
    if not statuses:
        return "true", ()
    return f"status in ({','.join('?' * len(statuses))})", tuple(statuses)


def _checkpoint(path: Path) -> None:
    db = apsw.Connection(str(path))
    try:
        # As a pragma: it reads the schema first, and a connection that has read nothing yet knows of no log.
        db.execute("pragma wal_checkpoint(passive)").fetchall()
    finally:
        db.close()
