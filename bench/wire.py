"""The clients' side in plain blocking sockets: next to no work, so that the server is what is measured."""

import socket
import struct
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

import msgspec

_KEY = "dGhlIHNhbXBsZSBub25jZQ=="
_BUFFER = 1 << 20
CLOSE, PING, PONG = 8, 9, 10


class Answer(NamedTuple):
    """What came back for a request."""

    status: int
    body: bytes

    def json(self) -> Any:
        """The body, decoded."""
        return msgspec.json.decode(self.body)


def request_bytes(method: str, target: str, body: bytes = b"") -> bytes:
    """One request of a connection that is kept."""
    extra = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
    return f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n{extra}\r\n".encode() + body


def upgrade_bytes(target: str) -> bytes:
    """The head that asks for a WebSocket."""
    return (
        f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {_KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


def connect(port: int) -> socket.socket:
    """A socket to a port of this machine."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


class _Buffered:
    """A socket read in pieces; leaving the block closes it."""

    def __init__(self, port: int) -> None:
        self.socket = connect(port)
        self._ahead = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def _more(self) -> None:
        data = self.socket.recv(_BUFFER)
        if not data:
            raise ConnectionError("the server closed the connection")
        self._ahead += data

    def _exactly(self, size: int) -> bytes:
        while len(self._ahead) < size:
            self._more()
        data = bytes(self._ahead[:size])
        del self._ahead[:size]
        return data

    def _head(self) -> bytes:
        while (end := self._ahead.find(b"\r\n\r\n")) < 0:
            self._more()
        return self._exactly(end + 4)


class Http(_Buffered):
    """One kept connection."""

    def ask(self, method: str, target: str, body: object = None) -> Answer:
        """A request and its answer."""
        self.send(method, target, body)
        return self.receive()

    def send(self, method: str, target: str, body: object = None) -> None:
        """A request; its answer is for `receive`."""
        self.socket.sendall(request_bytes(method, target, msgspec.json.encode(body) if body is not None else b""))

    def receive(self) -> Answer:
        """The answer to the oldest request that has none yet."""
        head = self._head().lower()
        length = head.partition(b"content-length:")[2].split(b"\r\n")[0]
        return Answer(int(head.split()[1]), self._exactly(int(length)))


class WebSocket(_Buffered):
    """A client of a session."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        super().__init__(parts.port or 80)
        self.socket.sendall(upgrade_bytes(f"{parts.path}?{parts.query}"))
        head = self._head()
        if b" 101 " not in head:
            raise ConnectionError(f"no WebSocket: {head!r}")

    def frame(self) -> tuple[int, bytes]:
        """The next frame: its opcode and payload. Pings are answered."""
        first, size = self._exactly(2)
        if size == 126:
            (size,) = struct.unpack("!H", self._exactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self._exactly(8))
        opcode, payload = first & 15, self._exactly(size)
        if opcode == PING:
            self._send(PONG, payload)
        return opcode, payload

    def follow(self) -> None:
        """Read on until the server closes, and close in return."""
        while (frame := self.frame())[0] != CLOSE:
            pass
        self._send(CLOSE, frame[1][:2])

    def show_presence(self) -> None:
        """What a client that reads raw bytes, and answers no ping, says now and then."""
        self._send(PONG, b"")

    def until(self, event: bytes) -> None:
        """Read on to an event of this kind."""
        while b'"event":"' + event + b'"' not in self.frame()[1]:
            pass

    def _send(self, opcode: int, payload: bytes) -> None:
        self.socket.sendall(bytes([0x80 | opcode, 0x80 | len(payload), 0, 0, 0, 0]) + payload)
