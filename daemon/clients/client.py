"""One WebSocket: a task reads commands and asks whether the peer is still there, another sends what the journal has.

Either of them ending ends the connection. The sender is a cursor into the journal, so replay and live are the same line, and a
slow client delays nobody.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from math import inf

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream

from daemon.clients.auth import Role
from daemon.clients.commands import Command, Commands, Ping, carry_out, decode
from daemon.clients.hub import Client, Hub
from daemon.clients.stream import ClientStream
from daemon.config import Config
from daemon.errors import CallerError
from daemon.journal.cursor import Cursor, EndOfJournal
from daemon.journal.cursor import Place as Stand
from daemon.journal.frames import PING, close_frame
from daemon.journal.journal import Frames, Gap, Journal
from daemon.journal.present import Present
from daemon.journal.segment import Stored

TOO_SLOW, VIOLATION, TOO_MANY = 4001, 4502, 4503
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
    """What is said to and by one client. Whichever of its tasks ends, ends it; then its nursery is cancelled."""

    __slots__ = ("_audience", "_client", "_ending", "_nursery", "_stream", "_ws")  # there are many

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

    async def run(self, place: Place) -> None:
        """Speak until the end."""
        self._nursery.start_soon(self._until_done, self._receive)
        await self._until_done(partial(self._send, place))

    async def _until_done(self, task: Callable[[], Awaitable[Close | None]]) -> None:
        close = None
        with suppress(ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError):
            close = await task()
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

    async def _send(self, place: Place) -> Close:
        journal, hub = self._audience.journal, self._audience.hub
        reset = place.reset_reason(journal)
        offset = 0 if reset else place.offset
        cursor = Cursor(journal, offset, from_file=self._stream.takes_files, keep_up=self._keep_up)
        await self._say(self._connected(reset))
        while True:
            try:  # without a name for what was read, which would keep it while the client waits for more
                said = await self._say(_frames(await cursor.read(), journal))
            except EndOfJournal:
                reason = "the session has ended" if hub.close_code == 1000 else "the daemon shuts down"
                return Close(hub.close_code, reason)
            if not said:
                await trio.sleep_forever()  # whoever sends the close ends the connection
            journal.delivered = max(journal.delivered, cursor.offset)

    async def _keep_up(self) -> Stand:
        """While the fan-out writes to this client; then what of it was left half-way."""
        place = await self._audience.hub.fanout.keep_up(self._stream.try_write)
        await self._stream.settle()
        return place

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
            with trio.move_on_at(answer_by if heard == asked else heard + config.ping_interval):
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
