"""Asking the model for one reply, streamed: its blocks become deltas and events as they come."""

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, aclosing, nullcontext, suppress
from math import inf
from typing import Any

import trio

from daemon.agent.compaction import share_over
from daemon.agent.conversation import Conversation
from daemon.agent.deltas import Deltas
from daemon.agent.model_errors import TOO_LONG, connection_errors, error_in_stream, model_error
from daemon.agent.prompt import system_prompt
from daemon.agent.reply import Reply
from daemon.agent.request import context_edits, request
from daemon.agent.scripted import SCRIPTED
from daemon.agent.sse import Events
from daemon.agent.tools import definitions
from daemon.agent.turn import Turn
from daemon.config import Config
from daemon.errors import ModelError
from daemon.journal.journal import Journal
from daemon.journal.present import Kind
from daemon.sessions.record import Settings
from tunnel.backoff import Backoff


class Asking:
    """How one session asks."""

    def __init__(
        self,
        *,
        journal: Journal,
        deltas: Deltas,
        conversation: Conversation,
        settings: Settings,
        system: str | None,
        preview_url: str,
        config: Config,
    ) -> None:
        self._journal = journal
        self._deltas = deltas
        self._conversation = conversation
        self._settings = settings
        self._system = system  # where the session has none of its own
        self._preview_url = preview_url
        self._config = config

    @property
    def edited_by_api(self) -> bool:
        """Whether the API is to make a long context shorter."""
        own_api = self._settings.model != SCRIPTED and self._config.anthropic_base_url is None
        return self._config.compaction == "api" or (self._config.compaction == "auto" and own_api)

    async def reply(self, client: Any, turn: Turn) -> Reply:
        """One reply, asked for again where that may help. `ModelError` where it does not come to its end.

        Tools are the caller's, after the end: no try has any effect but text, which is withdrawn.
        """
        backoff = Backoff(self._config.retry_first, self._config.retry_longest)
        attempt, failures, gives_up = 1, 0, inf
        while True:
            block = turn.blocks
            try:
                return await self._try(client, turn)
            except ModelError as error:
                attempt += 1
                if error.code == TOO_LONG and self._conversation.compact(share_over(error.detail)):
                    self._withdraw(turn, attempt, error.code, block)
                    continue
                failures += 1
                gives_up = min(gives_up, trio.current_time() + self._config.model_patience)
                pause = max(backoff.next(), error.retry_after)
                too_late = failures > self._config.model_retries or trio.current_time() + pause > gives_up
                if too_late or not error.retryable:
                    raise
                self._withdraw(turn, attempt, error.code, block)
            await trio.sleep(pause)

    def _withdraw(self, turn: Turn, attempt: int, reason: str, block: int) -> None:
        """What has been said since this block does not count; the open one is never written down."""
        self._deltas.close()
        turn.reply = None
        blocks = list(range(block, turn.blocks))
        self._journal.append("turn_retry", turn=turn.number, attempt=attempt, reason=reason, blocks=blocks)

    async def _try(self, client: Any, turn: Turn) -> Reply:
        reply = turn.reply = Reply(BlockSink(self._journal, self._deltas, turn))
        try:
            with trio.fail_after(self._config.event_deadline) as silence:
                stream = await self._send(client, sums_up=turn.sums_up)
                async with stream, aclosing(stream.response.aiter_bytes()) as received:
                    with self._paced(stream.response, reply):
                        await self._read(received, reply, silence)
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

    async def _send(self, client: Any, *, sums_up: bool) -> Any:
        model, system = self._settings.model, self._settings.system
        asked = request(
            self._config,
            model=model,
            system=system_prompt(self._preview_url, self._system if system is None else system),
            messages=self._conversation.told,
            tools=definitions(),
            sums_up=sums_up,
        )
        if self.edited_by_api:
            return await client.beta.messages.create(**asked, **context_edits(self._config, sums_up=sums_up))
        return await client.messages.create(**asked)

    def _paced(self, response: Any, reply: Reply) -> AbstractContextManager[object]:
        """Within a block, after its first piece, read once a window (transport.py)."""
        connection = response.extensions.get("network_stream")
        if not self._config.delta_window or not hasattr(
            connection, "answering"
        ):  # a connection of the SDK's own, to a proxy
            return nullcontext()

        async def when_dry() -> None:
            if reply.growing:
                await connection.gather()

        answering: AbstractContextManager[object] = connection.answering(
            when_dry, chunked=response.headers.get("transfer-encoding") == "chunked"
        )
        return answering

    async def _read(self, received: AsyncIterator[bytes], reply: Reply, silence: trio.CancelScope) -> None:
        """Feed the reply; only what is said renews the deadline, a ping does not."""
        stream = Events()
        async for data in received:
            heard = False
            with self._journal.together():
                for event in stream.feed(data):
                    kind = event["type"]
                    if kind == "error":
                        raise error_in_stream(event)
                    if kind != "ping" and not reply.complete:
                        reply.feed(event)
                        heard = True
                self._deltas.send()
            now = trio.current_time()
            limit = self._config.summary_deadline if reply.sums_up else self._config.event_deadline
            if heard and not now + limit * 0.9 <= silence.deadline <= now + limit:
                silence.deadline = now + limit  # not for each: a deadline costs as much as an event
            if reply.complete:
                # The end of the body, mostly in the same bytes: only then can the connection be used again.
                with trio.move_on_after(self._config.model_linger), suppress(*connection_errors()):
                    async for _ in received:
                        pass
                return


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
