"""Requests and responses on a session's port, spoken by h11 on a stream of ours."""

import re
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote

import h11
import msgspec
import trio

from daemon.clients.stream import ClientStream

_AUTHORITY = re.compile(r"^https?://[^/?#]*", re.IGNORECASE)  # the absolute form, as proxies send it


@dataclass(frozen=True)
class Request:
    """A request's head; bodies are not taken on this port."""

    method: str
    path: str  # decoded, begins with /
    raw_path: str  # as sent
    query: dict[str, str]
    headers: dict[str, str]  # names in lower case
    head: bytes = field(repr=False)  # all bytes read so far, the head first
    mount: str = ""  # what was before the path, where a session is one of several on a listener

    @property
    def wants_websocket(self) -> bool:
        """Whether it asks for an upgrade."""
        tokens = {token.strip() for token in self.headers.get("connection", "").lower().split(",")}
        return "upgrade" in tokens and self.headers.get("upgrade", "").lower() == "websocket"

    @property
    def forwarded_https(self) -> bool | None:
        """Whether the proxy in front was asked by https; for listeners that only a proxy of ours can reach."""
        said = self.headers.get("x-forwarded-proto")
        return (
            said.rpartition(",")[2].strip().lower() == "https" if said is not None else None
        )  # the last one is its own

    def below(self, mount: str) -> "Request":
        """The same request, as the session that is mounted there sees it."""
        return replace(self, mount=mount, path=self.path[len(mount) :], raw_path=self.raw_path[len(mount) :])

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies sent, by name."""
        pairs = (pair.strip().partition("=") for pair in self.headers.get("cookie", "").split(";"))
        return {name: value for name, _, value in pairs if name}

    @property
    def token(self) -> str | None:
        """The token, from the query or as a bearer."""
        scheme, _, bearer = self.headers.get("authorization", "").partition(" ")
        return self.query.get("token") or (bearer.strip() if scheme.lower() == "bearer" else None)


@dataclass(frozen=True)
class Response:
    """What is answered."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def text(status: int, message: str, **headers: str) -> Response:
    """A line of plain text."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, f"{message}\n".encode(), {"Content-Type": "text/plain; charset=utf-8", **named})


def json(value: object, **headers: str) -> Response:
    """A JSON value."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(
        200, msgspec.json.encode(value), {"Content-Type": "application/json", "Cache-Control": "no-store", **named}
    )


class HttpConnection:
    """One connection, request by request."""

    def __init__(self, stream: ClientStream, *, max_head: int) -> None:
        self.stream = stream
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=max_head)
        self._head = b""

    async def receive(self) -> Request | None:
        """The next request, or None when the peer has gone. A malformed one raises `h11.RemoteProtocolError`."""
        while True:
            event = self._h11.next_event()
            if event is h11.NEED_DATA:
                data = bytes(await self.stream.receive_some(65536))
                self._head += data
                self._h11.receive_data(data)
            elif isinstance(event, h11.Request):
                return _request(event, self._head)
            elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
                return None

    async def answer(self, request: Request | None, response: Response) -> bool:
        """Send a response; whether the connection can take another request."""
        has_body = request is not None and (
            request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
        )
        headers = {
            "Content-Length": str(len(response.body)),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            **response.headers,
        }
        if has_body or request is None:
            headers["Connection"] = "close"
        if response.status in {204, 304}:
            del headers["Content-Length"]
        reason = HTTPStatus(response.status).phrase
        head = h11.Response(status_code=response.status, headers=list(headers.items()), reason=reason)
        out = self._h11.send(head) or b""
        if request is None or request.method != "HEAD":
            out += self._h11.send(h11.Data(data=response.body)) or b""
        out += self._h11.send(h11.EndOfMessage()) or b""
        await self.stream.send_all(out)
        if headers.get("Connection") == "close":
            return False
        while self._h11.their_state is h11.SEND_BODY:  # an empty body still has its end
            if self._h11.next_event() is h11.NEED_DATA:
                return False
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            return False
        self._head = bytes(self._h11.trailing_data[0])
        self._h11.start_next_cycle()
        return True

    async def refuse(self, error: h11.RemoteProtocolError) -> None:
        """Answer a malformed head, where that is still possible."""
        if self._h11.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            await self.answer(None, text(error.error_status_hint, "malformed request"))

    async def finish(self) -> None:
        """Let the peer read what was sent before the socket is closed over bytes that it still sends."""
        with trio.move_on_after(0.5):
            await self.stream.send_eof()
            for _ in range(16):
                if not await self.stream.receive_some(65536):
                    break


def _request(event: h11.Request, head: bytes) -> Request:
    # By hand: urlsplit() takes `//name` for a host, and raises on `//[`.
    target = _AUTHORITY.sub("", event.target.decode("ascii", "replace")).partition("#")[0]
    raw_path, _, query = target.partition("?")
    if not raw_path.startswith("/"):
        raw_path = "/" + raw_path
    headers: dict[str, str] = {}
    for name, value in event.headers:
        headers[name.decode("latin-1")] = value.decode("latin-1")
    return Request(
        method=event.method.decode("ascii", "replace"),
        path=unquote(raw_path, errors="surrogateescape"),
        raw_path=raw_path,
        query=dict(parse_qsl(query, keep_blank_values=True)),
        headers=headers,
        head=head,
    )
