"""One WebSocket: a task reads commands, one sends what the journal has, one asks whether the peer is still there.

Any of them ending ends the connection. The sender is a cursor into the journal, so replay and live are the same line, and a
slow client delays nobody.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream

from daemon.clients.auth import Role
from daemon.clients.commands import Command, Commands, Ping, carry_out, decode
from daemon.clients.hub import Client, Hub
from daemon.clients.stream import ClientStream
from daemon.config import Config
from daemon.errors import CallerError
from daemon.journal.cursor import Cursor, EndOfJournal
from daemon.journal.frames import close_frame
from daemon.journal.journal import Gap, Journal
from daemon.journal.present import Present

TOO_SLOW, VIOLATION, TOO_MANY = 4001, 4502, 4503
_VIOLATIONS = {1002, 1007}  # what wsproto says of a frame that no client may send


@dataclass(frozen=True)
class Place:
    """Where a client wants to go on."""

    offset: int = 0
    epoch: str | None = None

    def reset_reason(self, journal: Journal) -> str | None:
        """Why the client cannot go on there and must begin anew."""
        if self.epoch is not None and self.epoch != journal.epoch:
            return "epoch"
        return "ahead" if self.offset > journal.offset else None


@dataclass(frozen=True)
class Close:
    """How a conversation ends from this side."""

    code: int
    reason: str


@dataclass(frozen=True)
class Audience:
    """What every client of a session shares."""

    journal: Journal
    hub: Hub
    present: Present
    commands: Commands
    config: Config


async def serve_client(stream: ClientStream, role: Role, place: Place, audience: Audience) -> None:
    """Speak to one client until it leaves, is evicted, or the journal has ended. Cancelled, its socket is closed by the caller."""
    config = audience.config
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(config.head_deadline) as opening:
            stream.on_end = opening.cancel  # wrap_server_stream would wait for ever (D17)
            request = await wrap_server_stream(nursery, stream, message_queue_size=1, max_message_size=config.max_frame)
            ws = await request.accept()
            stream.last_word = partial(_last_word, ws)
        if opening.cancelled_caught:
            nursery.cancel_scope.cancel()
            return
        if len(audience.hub) >= config.max_clients:
            await _close(ws, Close(TOO_MANY, "too many clients"), config.drain_grace)
        else:
            with audience.hub.joined(role) as client:
                await _converse(ws, stream, client, place, audience)
        nursery.cancel_scope.cancel()


async def _converse(
    ws: WebSocketConnection, stream: ClientStream, client: Client, place: Place, audience: Audience
) -> None:
    ending = False

    async with trio.open_nursery() as nursery:

        async def until_done(task: Callable[..., Awaitable[Close | None]], *args: Any) -> None:
            nonlocal ending
            close = None
            with suppress(ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError):
                close = await task(*args)
            if ending:  # by another task, which may be in the middle of the closing handshake
                return
            ending = True
            if close is not None:
                await _close(ws, close, audience.config.drain_grace)
            nursery.cancel_scope.cancel()

        nursery.start_soon(until_done, _receive, ws, stream, client, audience)
        nursery.start_soon(until_done, _keep_alive, ws, audience.config)
        await until_done(_send, ws, stream, client, place, audience)


async def _send(
    ws: WebSocketConnection, stream: ClientStream, client: Client, place: Place, audience: Audience
) -> Close:
    journal = audience.journal
    reset = place.reset_reason(journal)
    cursor = Cursor(journal, 0 if reset else place.offset)
    first = journal.live_frame(
        "connected",
        client_id=client.client_id,
        role=client.role,
        epoch=journal.epoch,
        offset=journal.offset,
        connected_clients=len(audience.hub),
        status=audience.commands.status,
        pending=audience.present.pending(),
    )
    if reset:
        first += journal.live_frame("replay_reset", reason=reset, epoch=journal.epoch)
    await stream.send_frames(first, lambda: ws.closed)
    while True:
        try:
            chunk = await cursor.read()
        except EndOfJournal:
            reason = "the session has ended" if audience.hub.close_code == 1000 else "the daemon shuts down"
            return Close(audience.hub.close_code, reason)
        if isinstance(chunk, Gap):
            data = journal.live_frame("replay_gap", **{"from": chunk.first, "to": chunk.last})
        else:
            data = chunk.data
        if not await stream.send_frames(data, lambda: ws.closed):
            await trio.sleep_forever()  # a close is under way: whoever sends it ends the connection
        journal.delivered = max(journal.delivered, cursor.offset)


async def _receive(ws: WebSocketConnection, stream: ClientStream, client: Client, audience: Audience) -> None:
    journal = audience.journal
    while True:
        message = await ws.get_message()
        try:
            command = _decode_for(client.role, message)
            if isinstance(command, Ping):
                reply = journal.live_frame("pong")
            else:
                reply = journal.live_frame("ack", **carry_out(command, audience.commands, client.client_id))
        except CallerError as error:
            reply = journal.live_frame("error", code=error.code, detail=error.detail)
        await stream.send_frames(reply, lambda: ws.closed)


def _decode_for(role: Role, message: str | bytes) -> Command:
    """A frame as a command that this role may give."""
    if role is Role.control:
        return decode(message)
    with suppress(CallerError):
        if isinstance(command := decode(message), Ping):
            return command
    raise CallerError("forbidden", 403, "this token may watch, not act")


async def _keep_alive(ws: WebSocketConnection, config: Config) -> Close:
    while True:
        await trio.sleep(config.ping_interval)
        with trio.move_on_after(config.pong_deadline) as waiting:
            await ws.ping()
        if waiting.cancelled_caught:
            return Close(TOO_SLOW, "no answer to a ping")


def _last_word(ws: WebSocketConnection) -> bytes:
    """The close for a peer that broke the protocol: trio-websocket would end the connection without one."""
    if ws.closed is None or ws.closed.code not in _VIOLATIONS:
        return b""
    return close_frame(VIOLATION, "protocol violation")


async def _close(ws: WebSocketConnection, close: Close, grace: float) -> None:
    """The closing handshake, with an end; the socket itself is closed by whoever accepted it."""
    with trio.move_on_after(grace):
        await ws.aclose(close.code, close.reason)
