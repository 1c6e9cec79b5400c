"""Asking the model for one reply, streamed: its blocks become deltas and events as they come."""

from typing import Any

import trio

from daemon.agent.conversation import Conversation
from daemon.agent.deltas import Deltas
from daemon.agent.models import model_error
from daemon.agent.prompt import system_prompt
from daemon.agent.reply import Reply
from daemon.agent.tools import definitions
from daemon.agent.turn import Turn
from daemon.config import Config
from daemon.errors import ModelError
from daemon.journal.journal import Journal
from daemon.journal.present import Kind
from daemon.sessions.record import Settings


class Asking:
    """How one session asks."""

    def __init__(
        self,
        *,
        journal: Journal,
        deltas: Deltas,
        conversation: Conversation,
        settings: Settings,
        preview_url: str,
        config: Config,
    ) -> None:
        self._journal = journal
        self._deltas = deltas
        self._conversation = conversation
        self._settings = settings
        self._preview_url = preview_url
        self._config = config

    async def reply(self, client: Any, turn: Turn) -> Reply:
        """One reply, streamed. `ModelError` where it does not come to its end."""
        reply = turn.reply = Reply(BlockSink(self._journal, self._deltas, turn))
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


class BlockSink:
    """Blocks of a reply become deltas and events."""

    def __init__(self, journal: Journal, deltas: Deltas, turn: Turn) -> None:
        self._journal = journal
        self._deltas = deltas
        self._turn = turn

    def opened(self, _index: int, kind: Kind) -> None:
        """A block begins: it gets its number in the turn."""
        self._deltas.open(self._turn.number, self._turn.blocks, kind)
        self._turn.blocks += 1

    def grew(self, text: str) -> None:
        """There is more of it."""
        self._deltas.add(text)

    def closed(self) -> None:
        """It is complete, or was cut: write down what came of it."""
        block = self._deltas.close()
        if block is not None and block.parts:
            name = "text" if block.kind == "text" else "thinking"
            data = {"turn": block.turn, "block": block.block, name: "".join(block.parts)}
            self._journal.append(f"claude_{block.kind}", **data)
