"""The other end of a session's WebSocket: following one from a terminal or a test."""

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import msgspec
import trio
from trio_websocket import ConnectionClosed, ConnectionTimeout, HandshakeError, WebSocketConnection, wrap_client_stream

from daemon.errors import first_cause

_HANDSHAKE_DEADLINE = 20.0  # s


@asynccontextmanager
async def open_client(websocket_url: str) -> AsyncIterator[WebSocketConnection]:
    """A WebSocket on a stream of ours: trio-websocket leaves the socket open where the server closes first.

    Leaving closes the socket. Raises OSError or `trio_websocket.HandshakeError` where nobody answers as a WebSocket.
    """
    parts = urlsplit(websocket_url)
    host, secure = parts.hostname or "", parts.scheme == "wss"
    stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]
    if secure:
        context = ssl.create_default_context()
        stream = await trio.open_ssl_over_tcp_stream(host, parts.port or 443, ssl_context=context)
    else:
        stream = await trio.open_tcp_stream(host, parts.port or 80)
    refusal: HandshakeError | None = None
    try:
        async with trio.open_nursery() as nursery:
            resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            with trio.move_on_after(_HANDSHAKE_DEADLINE) as opening:  # it never returns if the server just closes
                ws = await wrap_client_stream(nursery, stream, parts.netloc, resource)
            if opening.cancelled_caught:
                raise ConnectionTimeout
            yield ws
            with trio.move_on_after(1):
                await ws.aclose()
            nursery.cancel_scope.cancel()
    except* HandshakeError as refused:  # raised by a task of the nursery
        refusal = first_cause(refused)  # type: ignore[assignment]
    finally:
        await trio.aclose_forcefully(stream)
    if refusal is not None:
        raise refusal


async def follow(websocket_url: str, on_event: Callable[[dict[str, Any]], object], *, offset: int = 0) -> int:
    """Give every event after an offset to `on_event` until the session ends or it returns True; the close code.

    Cancelled, the connection is closed.
    """
    separator = "&" if "?" in websocket_url else "?"
    async with open_client(f"{websocket_url}{separator}offset={offset}") as ws:
        try:
            while True:
                event = msgspec.json.decode(await ws.get_message())
                if on_event(event) is True:
                    return 1000
        except ConnectionClosed as closed:
            return closed.reason.code if closed.reason else 1006
