"""One session: its state, what may be asked of it, and how it moves from phase to phase."""

import secrets
from typing import Any

import trio

from daemon.agent.approvals import no_such_approval
from daemon.agent.turns import Agent
from daemon.awaited import Once
from daemon.clients.auth import Tokens
from daemon.clients.hub import Hub
from daemon.config import Config
from daemon.errors import CallerError, FootlightError, JournalFull, WorldError, first_cause
from daemon.journal.events import utc_now
from daemon.journal.journal import Journal
from daemon.journal.store import Store
from daemon.log import log
from daemon.occupancy import Occupancy
from daemon.sessions.lifecycle import STEP_OF, TRANSITIONS, Phase, Reason, Status, Step, advance, shown
from daemon.sessions.mailbox import Mailbox, Prompt, check_prompt
from daemon.sessions.record import Failure, Record, SessionView, view_of
from tunnel import Lost, Restored, Tunnel, TunnelError, websocket_url

_UNKNOWN = Failure("internal_error", "the session failed; the log says more")


class Session:
    """One run of a session, from the request that began it until everything it owned is gone.

    Its lifecycle moves in its own task only; the methods that requests and clients call are synchronous and leave a prompt or
    a wish that the task acts on, so nothing can come between a question and its answer.
    """

    def __init__(self, record: Record, config: Config, store: Store) -> None:
        self.record = record
        self.run_id = secrets.token_hex(8)
        self.scope = trio.CancelScope()  # cancelled by whatever ends the session early
        self.recorded = Once()  # its journal is open, or it has ended
        self.settled = Once()  # its URL answers, or it has ended
        self.ended = Once()  # all it owned is gone
        self.readers: Occupancy[Journal] = Occupancy()  # requests that follow its journal
        self.mailbox = Mailbox(config.max_prompts)
        self.reason: Reason | None = None
        self.detail: str | None = None
        self.journal: Journal | None = None
        self.hub: Hub | None = None
        self.agent: Agent | None = None
        self._phase = Phase.INITIALIZING
        self._config = config
        self._store = store
        self.tokens = Tokens()
        self._tunnel: Tunnel | None = None
        self._failure: BaseException | None = None  # the first one; it comes by on every level that it passes
        self._first_offset = record.offset
        self.save()

    # --- what requests and clients call

    @property
    def session_id(self) -> str:
        """Its name."""
        return self.record.session_id

    @property
    def status(self) -> Status:
        """As the API shows it."""
        return shown(self._phase, self.reason)

    @property
    def queued_prompts(self) -> int:
        """How many prompts wait."""
        return len(self.mailbox)

    @property
    def events(self) -> int:
        """How many events this run has journaled."""
        return self.journal.offset - self._first_offset if self.journal is not None else 0

    @property
    def ending(self) -> bool:
        """Whether it takes no more prompts."""
        return self.reason is not None or self._phase is Phase.STOPPING

    def prompt(self, message: str, message_id: str | None, *, same_text_counts: bool) -> dict[str, Any]:
        """Queue a prompt unless it is a retry; what is acknowledged of it."""
        check_prompt(message, message_id, self._config)
        if self.ending:
            raise CallerError("session_ending", 409, "the session is ending")
        repeated = self.mailbox.holds(message) if same_text_counts and message_id is None else False
        if repeated or (message_id is not None and self._store.seen(self.session_id, message_id)):
            return {"accepted": "duplicate", "message_id": message_id}
        prompt, position = self.mailbox.put(message, message_id)
        self._store.accept(self.session_id, prompt.message_id)
        self.record.last_activity = utc_now()
        if self.journal is not None:
            try:
                self.journal.append("prompt_queued", message_id=prompt.message_id, prompt=message, position=position)
            except JournalFull as error:  # nothing may happen that is not written down
                self.fail(error)
                self.scope.cancel()
                raise CallerError(error.code, 507, error.detail) from error
        return {"accepted": "queued", "message_id": prompt.message_id, "position": position}

    def interrupt(self) -> None:
        """End the current turn, if there is one."""
        if self.agent is not None:
            self.agent.interrupt()

    def resolve(self, tool_use_id: str, *, approved: bool, client_id: int, reason: str | None) -> None:
        """Answer a tool call that waits for a person."""
        if self.agent is None:
            raise no_such_approval()
        self.agent.approvals.resolve(tool_use_id, approved=approved, client_id=client_id, reason=reason)

    def stop(self, reason: Reason = Reason.stopped) -> None:
        """Begin its end; the first reason counts. What has not begun to run can only be stopped."""
        legal = STEP_OF[reason] in TRANSITIONS.get(self._phase, {})
        self._end(reason if legal else Reason.stopped, None)
        self.scope.cancel()

    def view(self) -> SessionView:
        """A snapshot for the API."""
        view = view_of(self.record)
        view.status = self.status
        view.queued_prompts = len(self.mailbox) if self._phase is not Phase.ENDED else 0
        if self.journal is not None:
            view.offset, view.epoch = self.journal.offset, self.journal.epoch
        if self.hub is not None:
            view.connected_clients = len(self.hub)
        if self._tunnel is not None and self._phase is not Phase.ENDED:
            base, socket = self._tunnel.url, self._tunnel.websocket_url
            view.websocket_url = f"{socket}?token={self.tokens.control}"
            view.watch_url = f"{socket}?token={self.tokens.watch}"
            view.preview_url = f"{base}/?token={self.tokens.watch}"
            view.health_url = f"{base}/health?token={self.tokens.watch}"
        return view

    # --- what its own task does

    def recorded_in(self, journal: Journal, hub: Hub) -> None:
        """Its journal is open; what this run writes comes after what it holds, which a bad disk may have made less."""
        self.journal, self.hub, self._first_offset = journal, hub, journal.offset

    async def run(self) -> None:
        """Turn after turn, until something ends it; returns when it is idle for too long."""
        assert self.journal is not None
        assert self.agent is not None
        while True:
            prompt = await self._next_prompt()
            if prompt is None:
                self._end(Reason.idle, None)
                return
            self._store.start_message(self.session_id, prompt.message_id)
            self.record.turn += 1
            self.save()
            try:
                await self.agent.run_turn(self.record.turn, prompt.message, prompt.message_id)
            finally:
                self.mailbox.current = None
            self.save()
            self.journal.append("ready_for_input", turn=self.record.turn, queued_prompts=len(self.mailbox))

    async def _next_prompt(self) -> Prompt | None:
        """The next prompt; None where none has come for too long."""
        if not self._config.idle_timeout:
            return await self.mailbox.next()
        with trio.move_on_after(self._config.idle_timeout):
            return await self.mailbox.next()
        return await self.mailbox.next() if len(self.mailbox) else None  # one accepted at the very end of the wait

    def save(self) -> None:
        """Keep the record as it is now."""
        record = self.record
        record.status, record.last_activity = self.status, utc_now()
        if self.journal is not None:
            record.offset, record.epoch = self.journal.offset, self.journal.epoch
        self._store.save(record.session_id, record.status, record.encode())

    def opened(self, tunnel: Tunnel) -> None:
        """Its URL answers: from now on the API shows it."""
        assert self.journal is not None
        self.journal.append("websocket_ready", websocket_url=tunnel.websocket_url, session_id=self.session_id)
        self._tunnel = tunnel
        self._phase = advance(self._phase, Step.ready)
        self.save()
        self.settled.set()
        log.info("url_published", session_id=self.session_id)

    def tunnel_changed(self, change: Lost | Restored) -> None:
        """Its URL does not answer for now, or one does again."""
        assert self.journal is not None
        name = self.session_id
        if isinstance(change, Lost):
            self.journal.append("tunnel_lost", code=change.code, detail=change.detail)
            log.warning("tunnel_lost", session_id=name, code=change.code, detail=change.detail)
            return
        old, new = websocket_url(change.old), websocket_url(change.new)
        if old != new:
            self.journal.append("websocket_url_changed", old=old, new=new)
            log.warning("url_changed", session_id=name)
            log.warning("url_old", session_id=name, url=old)
            log.warning("url_new", session_id=name, url=new)
        seconds = round(change.seconds, 3)
        self.journal.append("tunnel_restored", websocket_url=new, seconds=seconds)
        log.info("tunnel_restored", session_id=name, url=new, seconds=seconds)

    def fail(self, error: BaseException) -> None:
        """It cannot go on; what the API will say of it."""
        error = first_cause(error)
        if error is self._failure:
            return
        failure = _failure(error)
        self._end(Reason.error, failure.detail)
        if self.reason is Reason.error and self._failure is None:
            self.record.error = failure
        self._failure = self._failure or error
        unexpected = None if isinstance(error, (FootlightError, TunnelError)) else error
        log.error(
            "session_failed",
            session_id=self.session_id,
            code=failure.code,
            detail=failure.detail,
            exc_info=unexpected,
        )

    def begin_end(self) -> None:
        """Its body has left: decide why, once."""
        if self._phase is Phase.STOPPING:
            return
        if self.reason is None and trio.current_time() >= self.scope.deadline:
            self._end(Reason.timeout, None)
        if self.reason is None:
            # Nobody asked for it: a task that serves the session crashed, and its error is on its way to `fail`.
            self._end(Reason.error, _UNKNOWN.detail)
            self.record.error = _UNKNOWN
        assert self.reason is not None
        self._phase = advance(self._phase, STEP_OF[self.reason])
        self.save()

    def finish(self) -> None:
        """All it owned is gone: the terminal status may show."""
        self.begin_end()
        self._phase = advance(self._phase, Step.drained)
        self._store.forget_unstarted(self.session_id)
        self.save()
        log.info("session_ended", session_id=self.session_id, reason=self.reason)
        self.release()

    def release(self) -> None:
        """Whoever waits for the session goes on."""
        self.recorded.set()
        self.settled.set()
        self.ended.set()

    def _end(self, reason: Reason, detail: str | None) -> None:
        if self.reason is None:
            self.reason, self.detail = reason, detail


def _failure(error: BaseException) -> Failure:
    """What may be said of an error to everyone; the rest is for the log."""
    if isinstance(error, (WorldError, TunnelError)):
        return Failure(error.code, error.detail)
    if isinstance(error, OSError) and error.strerror:
        return Failure("io_error", error.strerror)
    return _UNKNOWN
