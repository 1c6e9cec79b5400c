"""Which sessions there are, and one task for each that is alive.

Whether a session exists is decided here without an await between question and answer; that is why a session never runs twice.
"""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from shutil import rmtree
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import trio

from daemon.agent.models import Models
from daemon.config import Config
from daemon.errors import CallerError
from daemon.journal.events import utc_now
from daemon.journal.journal import Journal, load_journal
from daemon.journal.store import Store
from daemon.log import log
from daemon.services import Services, open_services
from daemon.sessions.lifecycle import Reason, Status
from daemon.sessions.mailbox import check_prompt
from daemon.sessions.opening import open_session
from daemon.sessions.record import Record, SessionView, Settings, view_of
from daemon.sessions.recovery import recover
from daemon.sessions.session import Session
from tunnel import TunnelProvider

# `$` alone would let a newline through.
SessionId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$(?!\n)", description="1-64 of A-Za-z0-9_-")]


class Asked(msgspec.Struct, kw_only=True):
    """A message for a session, and what the session should be like if it has to be made or opened again."""

    message: Annotated[str, msgspec.Meta(min_length=1)]
    session_id: SessionId | None = None
    message_id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | None = None
    model: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] | None = None
    system: Annotated[str, msgspec.Meta(max_length=100_000)] | None = None
    approval: Literal["auto", "ask"] | None = None
    timeout: Annotated[float, msgspec.Meta(gt=0, le=31_536_000, description="seconds the session may live")] | None = (
        None
    )
    token_budget: Annotated[int, msgspec.Meta(ge=1, le=1 << 53)] | None = None


class Accepted(NamedTuple):
    """What became of a message."""

    view: SessionView
    accepted: Literal["created", "queued", "duplicate"]


class Registry:
    """Made by `open_registry`."""

    def __init__(
        self, config: Config, store: Store, tunnels: TunnelProvider, models: Models, services: Services
    ) -> None:
        self.config = config
        self.closing = False
        self.opened_at = trio.current_time()
        self._store = store
        self._tunnels = tunnels
        self._models = models
        self._services = services
        self._created = 0
        self._events = 0  # of sessions that are gone
        self._live: dict[str, Session] = {}
        self._purging: dict[str, trio.Event] = {}

    # --- what requests ask for

    async def chat(self, asked: Asked) -> Accepted:
        """Give a message to its session; makes or reopens the session where that is not alive.

        Waits only where the session is just ending: until it is gone.
        """
        check_prompt(asked.message, asked.message_id, self.config)
        session_id = asked.session_id or secrets.token_hex(6)
        log.info("request", method="POST", path="/api/chat", session_id=session_id)
        while session_id in self._live or session_id in self._purging:
            session = self._live.get(session_id)
            if session is not None and not session.ending:
                said = session.prompt(asked.message, asked.message_id, same_text_counts=True)
                if asked.token_budget is not None:
                    session.record.settings.token_budget = asked.token_budget
                session.record.settings.approval = asked.approval or session.record.settings.approval
                log.info("new_session", new=False)
                log.info("existing", session_id=session_id)
                return Accepted(session.view(), said["accepted"])
            await (session.ended if session else self._purging[session_id]).wait()
        return self._create(session_id, asked)

    def get(self, session_id: str) -> SessionView:
        """A session as it is now."""
        session = self._live.get(session_id)
        return session.view() if session else view_of(self._record(session_id))

    async def wait(self, session_id: str, seconds: float) -> SessionView:
        """A session as soon as it has its URL or has ended, or as it is after so many seconds."""
        with trio.move_on_after(seconds):
            # Again, as it may have ended and have been opened again in one.
            while (session := self._live.get(session_id)) is not None and not session.settled.is_set():
                await session.settled.wait()
        return self.get(session_id)

    def list(self, statuses: list[str], before: int | None, limit: int) -> tuple[list[SessionView], int, int | None]:
        """A page of sessions, newest first; how many there are; the cursor of the next page."""
        rows = self._store.records(statuses=statuses, before=before, limit=limit + 1)
        views = [self._view(Record.decode(record)) for _, record in rows[:limit]]
        return views, self._store.count(statuses), rows[limit - 1][0] if len(rows) > limit else None

    def interrupt(self, session_id: str) -> SessionView:
        """End the current turn of a session."""
        session = self._live.get(session_id)
        if session is not None:
            session.interrupt()
        return self.get(session_id)

    async def stop(self, session_id: str, reason: Reason = Reason.stopped) -> SessionView:
        """End a session and return when all it owned is gone."""
        session = self._live.get(session_id)
        if session is None:
            return self.get(session_id)
        session.stop(reason)
        await session.ended.wait()
        return session.view()  # of the run that was ended; a message may have opened the session again

    async def delete(self, session_id: str, *, purge: bool) -> SessionView:
        """End a session and return when all it owned is gone; `purge` also deletes what is kept of it."""
        if not purge:
            return await self.stop(session_id)
        while session_id in self._purging:
            await self._purging[session_id].wait()
        self._purging[session_id] = trio.Event()  # from here on no message opens it again
        try:
            view = await self.stop(session_id)
            with trio.CancelScope(shield=True, deadline=trio.current_time() + self.config.shutdown_grace):
                await trio.to_thread.run_sync(rmtree, self.config.session_dir(session_id), True)
            self._store.delete(session_id)
        finally:
            self._purging.pop(session_id).set()
        return view

    @asynccontextmanager
    async def history(self, session_id: str) -> AsyncIterator[Journal]:
        """A session's journal: the one that is being written, or a closed one opened for reading."""
        session = self._live.get(session_id)
        if session is not None:
            await session.recorded.wait()
            if session.journal is not None and not session.journal.ended:  # an ended one is about to be closed
                with session.readers.entered(session.journal):
                    yield session.journal
                return
        self._record(session_id)
        folder = self.config.session_dir(session_id) / "journal"
        try:
            journal = await trio.to_thread.run_sync(_read_journal, session_id, folder, self.config.journal_limit)
        except FileNotFoundError:
            raise CallerError("session_not_found", 404, f"nothing is kept of session {session_id}") from None
        try:
            yield journal
        finally:
            journal.close()

    def counts(self) -> dict[str, int]:
        """What is alive, and what has been so far."""
        sessions = list(self._live.values())
        return {
            "sessions": len(sessions),
            "clients": sum(len(session.hub) for session in sessions if session.hub),
            "queued_prompts": sum(session.queued_prompts for session in sessions),
            "created": self._created,
            "events": self._events + sum(session.events for session in sessions),
        }

    def statuses(self) -> dict[str, int]:
        """How many sessions are kept, by status."""
        return {status.value: self._store.count([status]) for status in Status}

    # --- the life of sessions

    async def stop_all(self) -> None:
        """Take no more messages, end every session and wait until all are gone."""
        self.closing = True
        for session in list(self._live.values()):
            session.stop(Reason.shutdown)
        for session in list(self._live.values()):
            await session.ended.wait()

    def _create(self, session_id: str, asked: Asked) -> Accepted:
        """Make or reopen a session; nothing is awaited here."""
        if self.closing:
            raise CallerError("shutting_down", 503, "the daemon is shutting down", retry_after=5)
        kept = self._store.load(session_id)
        if kept is not None and asked.message_id is not None and self._store.seen(session_id, asked.message_id):
            return Accepted(view_of(Record.decode(kept)), "duplicate")
        record = Record.decode(kept) if kept is not None else None
        settings = self._settings(asked, record)
        self._models.refuse_unusable(settings.model)
        if len(self._live) >= self.config.max_sessions:
            detail = f"{self.config.max_sessions} sessions are alive already"
            raise CallerError("too_many_sessions", 429, detail, retry_after=10)
        log.info("new_session", new=record is None)
        log.info("creating" if record is None else "reopening", session_id=session_id)
        now = utc_now()
        if record is None:
            record = Record(
                session_id=session_id, created_at=now, last_activity=now, expires_at=None, settings=settings
            )
        record.settings, record.error, record.expires_at = settings, None, _expiry(settings.timeout)
        session = Session(record, self.config, self._store)
        session.prompt(asked.message, asked.message_id, same_text_counts=False)
        self._live[session_id] = session
        self._created += 1
        self._services.start_soon(self._run, session)
        return Accepted(session.view(), "created" if kept is None else "queued")

    async def _run(self, session: Session) -> None:
        """The task of one session; containment point 2 of 2."""
        log.info("spawning", session_id=session.session_id)
        config, store, tunnels, models = self.config, self._store, self._tunnels, self._models
        if timeout := session.record.settings.timeout:
            session.scope.deadline = trio.current_time() + timeout
        try:
            try:
                with session.scope:
                    async with open_session(session, config=config, store=store, tunnels=tunnels, models=models):
                        await session.run()
            except* Exception as group:  # noqa: BLE001
                session.fail(group)
            finally:
                session.finish()
        except Exception as error:  # noqa: BLE001  # the store itself failed
            log.error("session_failed", session_id=session.session_id, code="store", detail=repr(error))
        finally:
            del self._live[session.session_id]
            self._events += session.events
            session.release()

    def _settings(self, asked: Asked, record: Record | None) -> Settings:
        """What was asked for, else what the session had, else the daemon's own."""
        had = record.settings if record else Settings(model=self.config.model, timeout=self.config.session_timeout)
        return Settings(
            model=asked.model or had.model,
            system=asked.system if asked.system is not None else had.system,
            approval=asked.approval or had.approval,
            timeout=asked.timeout if asked.timeout is not None else had.timeout,
            token_budget=asked.token_budget if asked.token_budget is not None else had.token_budget,
        )

    def _record(self, session_id: str) -> Record:
        kept = self._store.load(session_id)
        if kept is None:
            raise CallerError("session_not_found", 404, f"there is no session {session_id}")
        return Record.decode(kept)

    def _view(self, record: Record) -> SessionView:
        session = self._live.get(record.session_id)
        return session.view() if session else view_of(record)


def _expiry(timeout: float) -> str | None:
    """When a session that begins now will have had its time."""
    if not timeout:
        return None
    end = datetime.now(UTC) + timedelta(seconds=timeout)
    return end.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _read_journal(session_id: str, folder: Any, limit: int) -> Journal:
    journal, _ = load_journal(session_id, folder, limit=limit, writable=False)
    journal.end()
    return journal


@asynccontextmanager
async def open_registry(
    config: Config, store: Store, tunnels: TunnelProvider, models: Models
) -> AsyncIterator[Registry]:
    """The sessions of one daemon. Leaving ends them all, each with its `session_end`, within the grace.

    A cancellation from outside reaches the sessions only as a wish to stop, so that they can tell it from a crash.
    """
    async with open_services() as services:
        registry = Registry(config, store, tunnels, models, services)
        await recover(store, config)
        try:
            yield registry
        finally:
            with trio.move_on_after(config.sessions_grace, shield=True):
                await registry.stop_all()
