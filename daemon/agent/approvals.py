"""Tool calls that wait for a person: whoever answers first decides, and no answer is never a yes."""

from dataclasses import dataclass, field
from typing import Any

import trio

from daemon.config import Config
from daemon.errors import CallerError
from daemon.journal.journal import Journal
from daemon.journal.present import Present
from daemon.sessions.record import Settings

_CANCELLED = "the turn ended before anybody answered"


@dataclass
class Verdict:
    """What became of a call that waited."""

    decision: str = "cancelled"  # approve, deny or cancelled
    client_id: int | None = None
    reason: str | None = _CANCELLED
    given: trio.Event = field(default_factory=trio.Event)


class Approvals:
    """The calls of one session that wait. Nothing ends the waiting but an answer or the end of the turn."""

    def __init__(self, journal: Journal, present: Present, settings: Settings, config: Config) -> None:
        self._journal = journal
        self._present = present
        self._settings = settings  # `approval` may be changed at any time
        self._otherwise = config.approval
        self._ask_for = config.ask_for  # the tools that wait, all where it is empty
        self._waiting: dict[str, Verdict] = {}

    async def refusal(self, call: dict[str, Any]) -> str | None:
        """Why a call may not run, for the model; None where it may. Cancelled, it may not, and the journal says so."""
        if (self._settings.approval or self._otherwise) == "auto":
            return None
        if self._ask_for and call["name"] not in self._ask_for:
            return None
        name = call["id"]
        said = {"tool_use_id": name, "tool": call["name"], "input": call["input"]}
        self._journal.append("approval_required", **said)
        verdict = self._waiting[name] = Verdict()
        self._present.approvals[name] = said
        try:
            await verdict.given.wait()
        finally:
            self._forget(name)
            told = {"decision": verdict.decision, "client_id": verdict.client_id, "reason": verdict.reason}
            self._journal.append("approval_resolved", tool_use_id=name, **told)
        if verdict.decision == "approve":
            return None
        return "denied by a person" + (f": {verdict.reason}" if verdict.reason else "")

    def resolve(self, tool_use_id: str, *, approved: bool, client_id: int, reason: str | None) -> None:
        """Answer a call that waits; a second answer is refused."""
        verdict = self._waiting.get(tool_use_id)
        if verdict is None:
            raise no_such_approval()
        self._forget(tool_use_id)
        verdict.decision = "approve" if approved else "deny"
        verdict.client_id, verdict.reason = client_id, reason
        verdict.given.set()

    def _forget(self, tool_use_id: str) -> None:
        self._waiting.pop(tool_use_id, None)
        self._present.approvals.pop(tool_use_id, None)


def no_such_approval() -> CallerError:
    """Nobody is asked about this call, or somebody has answered before."""
    return CallerError("no_such_approval", 404, "no tool call with this id waits for an answer")
