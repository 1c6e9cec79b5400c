"""The other end of a session's WebSocket: following one from a terminal or a test."""

from collections.abc import Callable
from typing import Any

import msgspec
from trio_websocket import ConnectionClosed, open_websocket_url


async def follow(websocket_url: str, on_event: Callable[[dict[str, Any]], object], *, offset: int = 0) -> int:
    """Give every event after an offset to `on_event` until the session ends or it returns True; the close code.

    Cancelled, the connection is closed. Raises `trio_websocket.HandshakeError` where there is no such session.
    """
    separator = "&" if "?" in websocket_url else "?"
    async with open_websocket_url(f"{websocket_url}{separator}offset={offset}") as ws:
        try:
            while True:
                event = msgspec.json.decode(await ws.get_message())
                if on_event(event) is True:
                    return 1000
        except ConnectionClosed as closed:
            return closed.reason.code if closed.reason else 1006
