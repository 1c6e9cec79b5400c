"""One WebSocket: a task reads commands and asks whether the peer is still there, another sends what the client has not got yet.

The sender is a cursor into the journal, so replay and live are the same line, and a slow client delays nobody. It ends where
the client has caught up: from there on the session's fan-out writes to it, until it falls behind again.
"""

from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from math import ceil, inf

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream

from daemon.clients.auth import Role
from daemon.clients.commands import Command, Commands, Ping, carry_out, decode
from daemon.clients.hub import Client, Hub
from daemon.clients.stream import ClientStream
from daemon.config import Config
from daemon.errors import CallerError
from daemon.journal.cursor import Cursor
from daemon.journal.cursor import Place as Stand
from daemon.journal.frames import PING, close_frame
from daemon.journal.journal import Frames, Gap, Journal
from daemon.journal.present import Present
from daemon.journal.segment import Stored

TOO_SLOW, VIOLATION, TOO_MANY = 4001, 4502, 4503
_GONE = (ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError)
_VIOLATIONS = {1002, 1007}  # what wsproto says of a frame that no client may send


@dataclass(frozen=True, slots=True)
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
        ws = await _open(nursery, stream, config)
        if ws is not None and len(audience.hub) >= config.max_clients:
            await _close(ws, Close(TOO_MANY, "too many clients"), config.drain_grace)
        elif ws is not None:
            with audience.hub.joined(role) as client:
                await _Conversation(nursery, ws, stream, client, audience).run(place)
        nursery.cancel_scope.cancel()
    await stream.aclose()  # the library's own end may have been cancelled before the last word


async def _open(nursery: trio.Nursery, stream: ClientStream, config: Config) -> WebSocketConnection | None:
    """The opening handshake; None where it is not over in time or the peer leaves."""
    with trio.move_on_after(config.head_deadline) as opening:
        stream.on_end = opening.cancel  # wrap_server_stream would wait for ever (D17)
        request = await wrap_server_stream(nursery, stream, message_queue_size=1, max_message_size=config.max_frame)
        ws = await request.accept()
        stream.last_word = partial(_last_word, ws)
    stream.on_end = bool
    return None if opening.cancelled_caught else ws


class _Conversation:
    """What is said to and by one client. Whichever of its tasks fails, or has a reason to close, ends it; then its nursery is cancelled."""

    __slots__ = ("_audience", "_client", "_cursor", "_ending", "_nursery", "_stream", "_ws", "write")  # there are many

    def __init__(
        self,
        nursery: trio.Nursery,
        ws: WebSocketConnection,
        stream: ClientStream,
        client: Client,
        audience: Audience,
    ) -> None:
        self._nursery = nursery
        self._ws = ws
        self._stream = stream
        self._client = client
        self._audience = audience
        self._ending = False
        self.write = stream.try_write  # for the fan-out, while the client keeps up

    async def run(self, place: Place) -> None:
        """Speak until the end."""
        journal, close = self._audience.journal, None
        reset = place.reset_reason(journal)
        self._cursor = Cursor(journal, 0 if reset else place.offset, from_file=self._stream.takes_files)
        try:
            with suppress(*_GONE):
                await self._say(self._connected(reset))
                self._nursery.start_soon(self._send)
                close = await self._receive()
            await self._end(close)
        finally:
            self._audience.hub.fanout.leave(self)
            self._cursor.rest()

    def fall(self, place: Stand) -> None:
        """It keeps up no more: a task of its own takes over."""
        self._cursor.resume(place)
        self._nursery.start_soon(self._send)

    async def _send(self) -> None:
        """Send what the client has not got yet, and leave the rest to the fan-out."""
        journal, hub, close = self._audience.journal, self._audience.hub, None
        with suppress(*_GONE):
            while True:
                # A checkpoint too: in a conversation that is over nothing is read, and nobody joins.
                await self._stream.settle()
                if (chunk := self._cursor.read_nowait()) is None:
                    break
                said = await self._say(_frames(chunk, journal))
                del chunk  # before there is another
                if not said:
                    await trio.sleep_forever()  # whoever sends the close ends the connection
                journal.delivered = max(journal.delivered, self._cursor.offset)
            if not journal.ended:
                self._cursor.rest()
                hub.fanout.join(self)
                return
            close = Close(
                hub.close_code, "the session has ended" if hub.close_code == 1000 else "the daemon shuts down"
            )
        await self._end(close)

    async def _end(self, close: Close | None) -> None:
        if self._ending:  # by another task, which may be in the middle of the closing handshake, and cancels this one
            await trio.sleep_forever()
        self._ending = True
        if close is not None:
            await _close(self._ws, close, self._audience.config.drain_grace)
        self._nursery.cancel_scope.cancel()

    async def _say(self, data: bytes | Stored) -> bool:
        """Send whole frames, unless a close is under way."""
        return await self._stream.send_frames(data, lambda: self._ws.closed)

    def _connected(self, reset: str | None) -> bytes:
        """What a client is told first."""
        audience, journal = self._audience, self._audience.journal
        first = journal.live_frame(
            "connected",
            client_id=self._client.client_id,
            role=self._client.role,
            epoch=journal.epoch,
            offset=journal.offset,
            connected_clients=len(audience.hub),
            status=audience.commands.status,
            pending=audience.present.pending(),
        )
        if reset:
            first += journal.live_frame("replay_reset", reason=reset, epoch=journal.epoch)
        return first

    async def _receive(self) -> Close:
        """Carry out what comes; where nothing comes, ask whether the peer is there. Whatever it sends then is an answer."""
        stream, config = self._stream, self._audience.config
        asked, answer_by = -inf, inf  # how long ago it was heard when it was last asked
        while True:
            heard, message = stream.heard, None
            with trio.move_on_at(answer_by if heard == asked else _with_others(heard, config.ping_interval)):
                message = await self._ws.get_message()
            if message is not None:
                await self._say(self._answer(message))
            elif stream.heard > heard:  # a part of a message, or a pong
                continue
            elif heard == asked:
                return Close(TOO_SLOW, "no answer to a ping")
            else:
                asked = heard
                await self._say(PING)
                answer_by = trio.current_time() + config.pong_deadline

    def _answer(self, message: str | bytes) -> bytes:
        """Carry out a frame; what is said to it."""
        journal, client = self._audience.journal, self._client
        try:
            command = _decode_for(client.role, message)
            if isinstance(command, Ping):
                return journal.live_frame("pong")
            return journal.live_frame("ack", **carry_out(command, self._audience.commands, client.client_id))
        except CallerError as error:
            return journal.live_frame("error", code=error.code, detail=error.detail)


def _with_others(heard: float, interval: float) -> float:
    """When to ask a client that was heard then: a little later than the interval, together with others, as to wake up costs most."""
    step = interval / 50
    return ceil((heard + interval) / step) * step


def _frames(chunk: Frames | Stored | Gap, journal: Journal) -> bytes | Stored:
    """What a client is sent of what was read."""
    if isinstance(chunk, Gap):
        return journal.live_frame("replay_gap", **{"from": chunk.first, "to": chunk.last})
    return chunk.data if isinstance(chunk, Frames) else chunk


def _decode_for(role: Role, message: str | bytes) -> Command:
    """A frame as a command that this role may give."""
    if role is Role.control:
        return decode(message)
    with suppress(CallerError):
        if isinstance(command := decode(message), Ping):
            return command
    raise CallerError("forbidden", 403, "this token may watch, not act")


def _last_word(ws: WebSocketConnection) -> bytes:
    """The close for a peer that broke the protocol: trio-websocket would end the connection without one."""
    if ws.closed is None or ws.closed.code not in _VIOLATIONS:
        return b""
    return close_frame(VIOLATION, "protocol violation")


async def _close(ws: WebSocketConnection, close: Close, grace: float) -> None:
    """The closing handshake, with an end; the socket itself is closed by whoever accepted it."""
    with trio.move_on_after(grace):
        await ws.aclose(close.code, close.reason)
