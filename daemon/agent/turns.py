"""The turn loop: a prompt, the model's replies, the tools they ask for, until the model has said its last word.

Every way out leaves the journal and the conversation whole: an open block is written down as far as it came, every tool call
has an answer, and `turn_complete` is the turn's last event.
"""

from dataclasses import dataclass, field
from typing import Any

import trio

from daemon.agent.conversation import Conversation, tool_result
from daemon.agent.deltas import Deltas
from daemon.agent.models import Models, model_error
from daemon.agent.prompt import system_prompt
from daemon.agent.reply import Reply
from daemon.agent.tools import Tools, definitions
from daemon.config import Config
from daemon.errors import ModelError
from daemon.journal.journal import Journal
from daemon.journal.present import Kind, Present
from daemon.sessions.record import Settings, Usage
from daemon.workspace.files import Workspace
from daemon.workspace.pages import pages_in

INTERRUPTED = "interrupted by a person before it ran to its end"
UNKNOWN = "unknown: the daemon ended while this ran; it may or may not have taken effect"


@dataclass
class _Turn:
    """One turn under way."""

    number: int
    usage: Usage = field(default_factory=Usage)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    blocks: int = 0  # numbered through the whole turn
    reply: Reply | None = None  # the one that streams
    results: list[dict[str, Any]] = field(default_factory=list)  # of the tools run so far in this round
    changed: bool = False


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
        conversation: Conversation,
        models: Models,
        settings: Settings,
        usage: Usage,
        preview_url: str,
        config: Config,
    ) -> None:
        self.deltas = Deltas(journal, present, config.delta_window)
        self._journal = journal
        self._present = present
        self._workspace = workspace
        self._conversation = conversation
        self._models = models
        self._settings = settings
        self._usage = usage
        self._preview_url = preview_url
        self._config = config
        self._tools = Tools(workspace, max_result=config.max_tool_result)
        self._turn: _Turn | None = None
        self._has_index = False

    def interrupt(self) -> None:
        """End the current turn, if there is one."""
        if self._turn is not None:
            self._turn.scope.cancel()

    def announce_preview(self) -> None:
        """Say once in a run that there is a page to open; a session that is opened again may have it from the beginning."""
        if not self._has_index and self._workspace.has("index.html"):
            self._has_index = True
            self._journal.append("preview_ready", preview_url=self._preview_url + "/")

    async def run_turn(self, number: int, prompt: str, message_id: str) -> None:
        """One turn. Cancelled or failed, its last event is still `turn_complete`."""
        turn = self._turn = _Turn(number)
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

    async def _rounds(self, turn: _Turn) -> str:
        client = await self._models.client(self._settings.model)
        for _ in range(self._config.max_rounds):
            if self._over_budget(turn):
                return "budget"
            reply = await self._ask(client, turn)
            turn.reply = None
            self._conversation.add("assistant", reply.content())
            calls = reply.tool_calls()
            for call in calls:
                await trio.lowlevel.checkpoint_if_cancelled()  # what will not be run is not shown either
                turn.results.append(await self._call(turn, call))
            if not calls:
                return reply.stop_reason or "end_turn"
            self._conversation.answer(turn.results, INTERRUPTED)
            turn.results = []
        raise ModelError(
            f"the turn took more than {self._config.max_rounds} replies", error_type="max_rounds", retryable=False
        )

    def _over_budget(self, turn: _Turn) -> bool:
        """Whether the session may ask the model no more; says so."""
        limit = self._settings.token_budget
        used = sum(usage.input_tokens + usage.output_tokens for usage in (self._usage, turn.usage))
        if limit is None or used < limit:
            return False
        self._journal.append("budget_reached", kind="tokens", limit=limit, used=used)
        return True

    async def _ask(self, client: Any, turn: _Turn) -> Reply:
        """One reply, streamed. `ModelError` where it does not come to its end."""
        reply = turn.reply = Reply(_BlockSink(self._journal, self.deltas, turn))
        try:
            with trio.fail_after(self._config.event_deadline) as silence:
                stream = await client.messages.create(
                    model=self._settings.model,
                    max_tokens=self._config.max_tokens,
                    system=system_prompt(self._preview_url, self._settings.system),
                    messages=self._conversation.messages,
                    tools=definitions(),
                    stream=True,
                )
                async with stream:
                    async for event in stream:
                        silence.deadline = trio.current_time() + self._config.event_deadline
                        reply.feed(event)
        except Exception as error:
            ours = model_error(error)
            if ours is None:
                raise
            try:
                raise ours from error
            finally:
                del ours  # or it would keep its own frame, and with it the SDK's broken stream, until a collection
        finally:
            turn.usage.add(reply.usage)
        if not reply.complete:  # a clean end of the connection raises nothing (D13)
            raise ModelError("the model's answer was cut short", error_type="stream_cut", retryable=True)
        return reply

    async def _call(self, turn: _Turn, call: dict[str, Any]) -> dict[str, Any]:
        """Run one tool and say so; the answer for the model."""
        said = {"turn": turn.number, "tool_use_id": call["id"], "tool": call["name"], "input": call["input"]}
        self._journal.append("claude_tool_use", **said)
        self._present.running_tools[call["id"]] = said
        started = trio.current_time()
        text, is_error = INTERRUPTED, True
        try:
            result = await self._tools.run(call["name"], call["input"])
            text, is_error = result.text, result.is_error
        finally:
            del self._present.running_tools[call["id"]]
            duration = round((trio.current_time() - started) * 1000)
            told = {"turn": turn.number, "tool_use_id": call["id"], "result": text, "is_error": is_error}
            self._journal.append("claude_tool_result", **told, duration_ms=duration)
        if result.changed:
            turn.changed = True
            self._journal.append("files_changed", paths=list(result.changed))
            self.announce_preview()
        return tool_result(call["id"], text, is_error=is_error)

    async def _discover_pages(self, turn: _Turn) -> None:
        if turn.changed:
            pages = await trio.to_thread.run_sync(pages_in, self._workspace, self._preview_url)
            if pages:
                self._journal.append("pages_discovered", pages=pages, total_pages=len(pages))

    def _settle(self, turn: _Turn) -> None:
        """After any way out: nothing half said stays open."""
        _BlockSink(self._journal, self.deltas, turn).closed()
        if turn.reply is not None:
            cut = [block for block in turn.reply.content() if block["type"] == "text"]
            self._conversation.add("assistant", cut)
        if self._conversation.unanswered():
            self._conversation.answer(turn.results, INTERRUPTED)


class _BlockSink:
    """Blocks of a reply become deltas and events."""

    def __init__(self, journal: Journal, deltas: Deltas, turn: _Turn) -> None:
        self._journal = journal
        self._deltas = deltas
        self._turn = turn

    def opened(self, _index: int, kind: Kind) -> None:
        self._deltas.open(self._turn.number, self._turn.blocks, kind)
        self._turn.blocks += 1

    def grew(self, text: str) -> None:
        self._deltas.add(text)

    def closed(self) -> None:
        block = self._deltas.close()
        if block is not None and block.parts:
            name = "text" if block.kind == "text" else "thinking"
            data = {"turn": block.turn, "block": block.block, name: "".join(block.parts)}
            self._journal.append(f"claude_{block.kind}", **data)
