"""Asking a URL through its tunnel whether the right session answers."""

import ssl
from urllib.parse import urlsplit

import h11
import trio

from tunnel import TunnelError

_MAX_ANSWER = 64 * 1024
_TRY = 5.0  # s: an edge that takes a request and never answers it is asked again


async def fetch(url: str, headers: dict[str, str]) -> tuple[int, bytes]:
    """GET a URL once: status and body. Raises OSError, h11.RemoteProtocolError or trio.BrokenResourceError."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]
    if parts.scheme == "https":
        stream = await trio.open_ssl_over_tcp_stream(
            host,
            parts.port or 443,
            ssl_context=ssl.create_default_context(),
            https_compatible=True,  # servers end without a close_notify; a body without a length ends so too
        )
    else:
        stream = await trio.open_tcp_stream(host, parts.port or 80)
    async with stream:
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_ANSWER)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        lines = {"Host": parts.netloc, "Connection": "close", **headers}
        request = h11.Request(method="GET", target=target, headers=list(lines.items()))
        await stream.send_all((connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b""))
        status, body = 0, b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(bytes(await stream.receive_some(16384)))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > _MAX_ANSWER:
                    return status, body
            elif isinstance(event, (h11.EndOfMessage, h11.ConnectionClosed)):
                return status, body


async def verify(url: str, expected: bytes, *, headers: dict[str, str], deadline: float, pause: float = 0.1) -> None:
    """Return once the URL answers 200 with `expected` in its body; `TunnelError` after `deadline` seconds.

    A tunnel may need a moment until the whole edge knows it, so a refusal is asked again after a pause, which doubles.
    """
    last = "no answer"
    with trio.move_on_after(deadline):
        while True:
            try:
                with trio.fail_after(_TRY):
                    status, body = await fetch(
                        url, {"ngrok-skip-browser-warning": "1", "User-Agent": "footlight", **headers}
                    )
            except (OSError, h11.RemoteProtocolError, trio.BrokenResourceError, trio.TooSlowError) as error:
                last = repr(error)
            else:
                if status == 200 and expected in body:
                    return
                last = f"status {status}" if status != 200 else "something else answers there"
            await trio.sleep(pause)
            pause = min(2.0, pause * 2)
    raise TunnelError("url_not_reachable", f"the URL did not answer within {deadline:g} s ({last})")
