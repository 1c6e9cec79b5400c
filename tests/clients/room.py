"""One session's port without its session: a real journal, workspace and port, and a session that only notes what it is told."""

import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import h11
import trio
import wsproto
import wsproto.events
from trio.testing import lockstep_stream_pair, memory_stream_pair
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from daemon.clients.auth import Tokens
from daemon.clients.client import Audience
from daemon.clients.hub import Hub
from daemon.clients.port import Port, open_port
from daemon.config import Config
from daemon.errors import CallerError
from daemon.journal.journal import Journal, open_journal
from daemon.journal.present import Present
from daemon.services import open_services
from daemon.testing import test_config as config_for
from daemon.workspace.files import Workspace, open_workspace
from tests.support import next_event


@dataclass
class NotedCommands:
    """The session's side of the protocol `Commands`: keeps what was asked, refuses the prompt `refuse me`."""

    status: str = "running"
    queued_prompts: int = 0
    asked: list[tuple[Any, ...]] = field(default_factory=list)

    def prompt(self, message: str, message_id: str | None, *, same_text_counts: bool) -> dict[str, Any]:
        if message == "refuse me":
            raise CallerError("too_many_prompts", 429, "no more")
        self.asked.append(("prompt", message, message_id, same_text_counts))
        return {"accepted": "queued", "message_id": message_id, "position": 1}

    def interrupt(self) -> None:
        self.asked.append(("interrupt",))

    def resolve(self, tool_use_id: str, *, approved: bool, client_id: int, reason: str | None) -> None:
        self.asked.append(("resolve", tool_use_id, approved, client_id, reason))

    def stop(self) -> None:
        self.asked.append(("stop",))


@dataclass
class Room:
    """What a test speaks to."""

    journal: Journal
    hub: Hub
    present: Present
    commands: NotedCommands
    workspace: Workspace
    tokens: Tokens
    config: Config
    audience: Audience
    port: Port

    def path(self, token: str | None = None, **query: object) -> str:
        """The path of /ws, with the control token unless another is given."""
        return "/ws?" + urlencode({"token": self.tokens.control if token is None else token, **query})

    async def serve(self, stream: trio.abc.HalfCloseableStream) -> None:
        """One connection, as the accept loop treats it."""
        try:
            await self.port.handle(stream)
        finally:
            await trio.aclose_forcefully(stream)

    @asynccontextmanager
    async def join(
        self, token: str | None = None, *, lockstep: bool = False, **query: object
    ) -> AsyncIterator[WebSocketConnection]:
        """A client in memory; leaving drops its connection. In lockstep, what it has not read holds up its sender."""
        theirs, ours = lockstep_stream_pair() if lockstep else memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.serve, ours)
            ws = await wrap_client_stream(nursery, theirs, "room", self.path(token, **query))
            try:
                yield ws
            finally:
                await trio.aclose_forcefully(theirs)
                nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[trio.abc.HalfCloseableStream]:
        """A bare connection in memory."""
        theirs, ours = memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.serve, ours)
            try:
                yield theirs
            finally:
                await trio.aclose_forcefully(theirs)
                nursery.cancel_scope.cancel()

    async def get(self, target: str, method: str = "GET", **headers: str) -> "Answer":
        """One request on a connection of its own."""
        async with self.connection() as stream:
            await stream.send_all(head(target, method, **headers))
            return await Answers(stream).next(method)

    def write_many(self, count: int, text: str = "") -> None:
        """Journal `count` events."""
        for _ in range(count):
            self.journal.append("agent_error", error=text, error_type="test", retryable=False)


def audience_of(journal: Journal, config: Config) -> Audience:
    return Audience(journal, Hub(journal), Present(), NotedCommands(), config)


@contextmanager
def open_room(tmp_path: Path, **settings: Any) -> Iterator[Room]:
    """A room in memory."""
    config = config_for(tmp_path, **settings)
    with (
        open_workspace(tmp_path / "workspace", max_file=config.max_file) as workspace,
        open_journal("s1", tmp_path / "journal", limit=config.journal_limit) as (journal, _),
    ):
        audience, tokens = audience_of(journal, config), Tokens()
        port = Port(audience, tokens, workspace)
        commands = audience.commands
        assert isinstance(commands, NotedCommands)
        yield Room(journal, audience.hub, audience.present, commands, workspace, tokens, config, audience, port)


@asynccontextmanager
async def open_listening_room(tmp_path: Path, **settings: Any) -> AsyncIterator[tuple[Room, str]]:
    """A room on a real port, and the start of its URLs."""
    with open_room(tmp_path, **settings) as room:
        async with (
            open_services() as services,
            open_port(services, room.audience, room.tokens, room.workspace) as port,
        ):
            room.port = port
            yield room, f"ws://127.0.0.1:{port.number}"


def head(target: str, method: str = "GET", **headers: str) -> bytes:
    """A request's bytes; `_` in a header's name stands for `-`."""
    lines = {"Host": "room", **{name.replace("_", "-"): value for name, value in headers.items()}}
    text = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return (text + "\r\n").encode("utf-8", "surrogateescape")


def handshake(target: str, **headers: str) -> bytes:
    """A WebSocket handshake's bytes."""
    needed = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec_WebSocket_Version": "13",
        "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    return head(target, **{**needed, **headers})


def frame(opcode, payload=b"", *, fin=True, masked=True, reserved=0, size=None):
    """One WebSocket frame, as wrong as asked for; `size` is the length it claims."""
    length = len(payload) if size is None else size
    data = bytes([(0x80 if fin else 0) | reserved << 4 | opcode])
    mask_bit = 0x80 if masked else 0
    if length < 126:
        data += bytes([mask_bit | length])
    elif length < 65536:
        data += bytes([mask_bit | 126]) + struct.pack("!H", length)
    else:
        data += bytes([mask_bit | 127]) + struct.pack("!Q", length)
    if not masked:
        return data + payload
    mask = b"\x01\x02\x03\x04"
    return data + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


@dataclass
class Answer:
    """A response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


class Answers:
    """The responses that come on one connection."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._rest = b""

    async def next(self, method: str = "GET") -> Answer:
        connection = h11.Connection(h11.CLIENT)
        connection.send(h11.Request(method=method, target="/", headers=[("Host", "room")]))
        connection.send(h11.EndOfMessage())
        connection.receive_data(self._rest) if self._rest else None
        answer = Answer(0, {}, b"")
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(bytes(await self._stream.receive_some(65536)))
            elif isinstance(event, h11.Response):
                answer.status = event.status_code
                answer.headers = {name.decode(): value.decode() for name, value in event.headers}
            elif isinstance(event, h11.Data):
                answer.body += event.data
            elif isinstance(event, h11.EndOfMessage):
                self._rest = bytes(connection.trailing_data[0])
                return answer
            else:
                raise AssertionError(f"the connection ended: {event}")


class RawClient:
    """A WebSocket client that answers nothing by itself."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._ws = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)

    async def open(self, path: str) -> None:
        await self.stream.send_all(self._ws.send(wsproto.events.Request(host="room", target=path)))

    async def send(self, event: wsproto.events.Event) -> None:
        await self.stream.send_all(self._ws.send(event))

    async def until(self, kind: type[wsproto.events.Event]) -> Any:
        """The next event of a kind; the end of the connection fails."""
        while True:
            for event in self._ws.events():
                if isinstance(event, kind):
                    return event
            data = await self.stream.receive_some(65536)
            assert data, f"the connection ended without {kind.__name__}"
            self._ws.receive_data(bytes(data))


async def rest_of(ws: WebSocketConnection) -> tuple[list[dict[str, Any]], int, str | None]:
    """Everything until the close, its code and reason."""
    found = []
    try:
        while True:
            found.append(await next_event(ws))
    except ConnectionClosed as closed:
        reason = closed.reason
        return found, reason.code if reason else 1006, reason.reason if reason else None
