"""The turn loop: a prompt, the model's replies, the tools they ask for, until the model has said its last word.

Every way out leaves the journal and the conversation whole: an open block is written down as far as it came, every tool call
has an answer, and `turn_complete` is the turn's last event.
"""

import trio

from daemon.agent.approvals import Approvals
from daemon.agent.asking import Asking, BlockSink
from daemon.agent.calling import INTERRUPTED, Calling
from daemon.agent.compaction import share_over
from daemon.agent.conversation import Conversation, tool_result
from daemon.agent.deltas import Deltas
from daemon.agent.models import Models
from daemon.agent.tools import Tools
from daemon.agent.turn import Turn
from daemon.config import Config
from daemon.errors import ModelError
from daemon.journal.journal import Journal
from daemon.journal.present import Present
from daemon.sessions.record import Settings, Usage
from daemon.workspace.files import Workspace
from daemon.workspace.pages import pages_in
from daemon.workspace.sandbox import Sandbox

UNKNOWN = "unknown: the daemon ended while this ran; it may or may not have taken effect"
CUT = "not run: your reply ran out of tokens in the middle of this call; make the call again with less in it, in several steps"


class Agent:
    """One session's agent. `run_turn` is called by one task at a time.

    `usage` is the session's own: each turn adds what it used before its `turn_complete`, and `settings.token_budget`, which
    may be raised at any time, is held against it.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        present: Present,
        workspace: Workspace,
        sandbox: Sandbox,
        conversation: Conversation,
        models: Models,
        settings: Settings,
        usage: Usage,
        preview_url: str,
        config: Config,
    ) -> None:
        self._deltas = Deltas(journal, present)
        self._journal = journal
        self._workspace = workspace
        self._conversation = conversation
        self._models = models
        self._settings = settings
        self._usage = usage
        self._preview_url = preview_url
        self._config = config
        self._asking = Asking(
            journal=journal,
            deltas=self._deltas,
            conversation=conversation,
            settings=settings,
            system=models.system,
            preview_url=preview_url,
            config=config,
        )
        self.approvals = Approvals(journal, present, settings, config)
        self._calling = Calling(
            journal=journal,
            present=present,
            approvals=self.approvals,
            tools=Tools(workspace, sandbox, config),
            changed=self._files_changed,
        )
        self._turn: Turn | None = None
        self._has_index = False

    def interrupt(self) -> None:
        """End the current turn, if there is one."""
        if self._turn is not None:
            self._turn.scope.cancel()

    def _files_changed(self) -> None:
        self._workspace.visits.changed()
        self.announce_preview()

    def announce_preview(self) -> None:
        """Say once in a run that there is a page to open; a session that is opened again may have it from the beginning."""
        if not self._has_index and self._workspace.has("index.html"):
            self._has_index = True
            self._journal.append("preview_ready", preview_url=self._preview_url + "/")

    async def run_turn(self, number: int, prompt: str, message_id: str) -> None:
        """One turn. Cancelled or failed, its last event is still `turn_complete`."""
        turn = self._turn = Turn(number)
        started = trio.current_time()
        self._journal.append("turn_start", turn=number, prompt=prompt, message_id=message_id)
        stop_reason, failure = "interrupted", {}
        try:
            self._conversation.answer([], UNKNOWN)  # what a crash of the daemon left open
            self._conversation.add("user", [{"type": "text", "text": prompt}])
            with turn.scope:
                stop_reason = await self._rounds(turn)
                await self._discover_pages(turn)
        except ModelError as error:
            stop_reason = "error"
            failure = {"error": error.detail, "error_type": error.code, "retryable": error.retryable}
        finally:
            self._turn = None
            self._usage.add(turn.usage)
            self._settle(turn)
            if failure:
                self._journal.append("agent_error", **failure)
            self._journal.append(
                "turn_complete",
                turn=number,
                stop_reason=stop_reason,
                is_error=stop_reason == "error",
                duration_ms=round((trio.current_time() - started) * 1000),
                usage=turn.usage,
            )

    async def _rounds(self, turn: Turn) -> str:
        client = await self._models.client(self._settings.model)
        cut = 0  # replies in a row that ended in the middle of a call
        for _ in range(self._config.max_rounds):
            if self._over_budget(turn):
                return "budget"
            reply = await self._asking.reply(client, turn)
            turn.reply = None
            if reply.stop_reason == "refusal":
                return "refusal"  # said back, it would be refused again; what it called is not run
            self._conversation.add("assistant", reply.content())
            if reply.stop_reason == "model_context_window_exceeded":
                self._conversation.compact(share_over(""))  # there is room for what comes next
            calls = reply.tool_calls()
            for call in calls:
                await trio.lowlevel.checkpoint_if_cancelled()  # what will not be run is not shown either
                if call["id"] in reply.cut:
                    turn.results.append(tool_result(call["id"], CUT, is_error=True))
                else:
                    turn.results.append(await self._calling.answer(turn, call))
            self._conversation.answer(turn.results, INTERRUPTED)
            turn.results = []
            cut = cut + 1 if reply.cut else 0
            if cut > self._config.max_cut_replies or not (calls or reply.stop_reason == "pause_turn"):
                return reply.stop_reason or "end_turn"
        raise ModelError(
            f"the turn took more than {self._config.max_rounds} replies", error_type="max_rounds", retryable=False
        )

    def _over_budget(self, turn: Turn) -> bool:
        """Whether the session may ask the model no more; says so."""
        limit = self._settings.token_budget
        used = self._usage.counted + turn.usage.counted
        if limit is None or used < limit:
            return False
        self._journal.append("budget_reached", kind="tokens", limit=limit, used=used)
        return True

    async def _discover_pages(self, turn: Turn) -> None:
        if turn.changed:
            pages = await trio.to_thread.run_sync(pages_in, self._workspace, self._preview_url, abandon_on_cancel=True)
            if pages:
                self._journal.append("pages_discovered", pages=pages, total_pages=len(pages))

    def _settle(self, turn: Turn) -> None:
        """After any way out: nothing half said stays open."""
        BlockSink(self._journal, self._deltas, turn).closed()
        if turn.reply is not None:
            cut = [block for block in turn.reply.content() if block["type"] == "text"]
            self._conversation.add("assistant", cut)
        if self._conversation.unanswered():
            self._conversation.answer(turn.results, INTERRUPTED)
