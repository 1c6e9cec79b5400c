"""At a start: the sessions that an earlier daemon left alive, and the journals that were left half written or have been damaged."""

from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import msgspec
import trio

from daemon.agent.unfinished import end_turn
from daemon.config import Config
from daemon.errors import WorldError
from daemon.journal.journal import Frames, Journal, Recovery, load_journal
from daemon.journal.store import Store
from daemon.journal.tail import ends_at
from daemon.log import log
from daemon.sessions.lifecycle import LIVE, TERMINAL, Reason, Status
from daemon.sessions.record import Record

_EVERYTHING = 1 << 30
_ENDED: list[str] = [status for status in Status if not status.live]


async def recover(store: Store, config: Config) -> None:
    """They are `interrupted`, and their journals say so. Cancelled, those that were not reached are left for the next start.

    A journal that cannot be opened or written stays as it is: it is no reason not to start.
    """
    for _, data in store.records(statuses=[*LIVE], before=None, limit=_EVERYTHING):
        record = Record.decode(data)
        folder = config.session_dir(record.session_id) / "journal"
        try:
            await trio.to_thread.run_sync(_close_journal, record, folder, config.journal_limit)
        except (OSError, WorldError) as error:
            log.error("journal_unusable", session_id=record.session_id, detail=str(error))
        store.forget_unstarted(record.session_id)
        store.save(record.session_id, record.status, record.encode())
        if record.status is Status.interrupted:
            log.info("interrupted_found", session_id=record.session_id)
    ended = [Record.decode(data) for _, data in store.records(statuses=_ENDED, before=None, limit=_EVERYTHING)]
    for record in await trio.to_thread.run_sync(_corrected, ended, config):
        store.save(record.session_id, record.status, record.encode())


async def open_proven(record: Record, folder: Path, config: Config) -> Journal:
    """A session's journal for its next run. What a crash left of it is cut back to what can be proven, and the log says so.

    Proving a long journal takes a while, so it is done in a thread; what the thread opened is never lost to a cancellation.
    """
    opened: list[tuple[Journal, Recovery]] = []

    def load() -> None:
        opened.append(load_journal(record.session_id, folder, limit=config.journal_limit, writable=True))

    try:
        if record.offset:
            await trio.to_thread.run_sync(load)
        else:
            load()
    except BaseException:
        for journal, _ in opened:
            journal.close()
        raise
    journal, found = opened[0]
    if found.cut or found.damaged:
        detail = found.cut or f"{found.damaged} damaged"
        log.warning("journal_recovered", session_id=record.session_id, events=found.events, detail=detail)
    return journal


def _corrected(records: list[Record], config: Config) -> list[Record]:
    """Those that say more than their journals hold, since the end of these was lost; corrected."""
    found = []
    for record in records:
        folder = config.session_dir(record.session_id) / "journal"
        if record.offset and not ends_at(folder / record.epoch, record.offset):
            with suppress(OSError, WorldError):  # nothing is kept, or it cannot be read
                journal, _ = load_journal(record.session_id, folder, limit=config.journal_limit, writable=False)
                with closing(journal):
                    record.offset, record.epoch = journal.offset, journal.epoch
                    found.append(record)
    return found


def _close_journal(record: Record, folder: Path, limit: int) -> None:
    """Write the end that the earlier daemon could not write, of the turn and of the session; the record learns how and where its journal ends.

    A journal that ends with one has nothing to add: the run had not begun to write, or only its record was not yet written.
    """
    was, record.status = record.status, Status.interrupted
    journal, _ = load_journal(record.session_id, folder, limit=limit, writable=True)
    with closing(journal):
        last = _last_event(journal)
        if last is not None and last["event"] != "session_end":
            end_turn(journal)
            detail = "the daemon ended while the session was alive"
            journal.append(
                "session_end", reason=Reason.interrupted, turn_count=record.turn, detail=detail, processes_killed=0
            )
        elif last is not None and was is Status.stopping:
            record.status = TERMINAL[Reason(last["data"]["reason"])]
        record.epoch, record.offset = journal.epoch, journal.offset


def _last_event(journal: Journal) -> dict[str, Any] | None:
    after = journal.offset - 1
    chunk = journal.read(after) if journal.offset else None
    if not isinstance(chunk, Frames):
        return None
    (payload,) = journal.payloads(after, chunk)
    event: dict[str, Any] = msgspec.json.decode(payload)
    return event
