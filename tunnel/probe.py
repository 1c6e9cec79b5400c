"""Asking a URL through its tunnel whether the right session answers."""

import ssl
from typing import NamedTuple
from urllib.parse import urlsplit

import h11
import trio

from tunnel import TunnelError
from tunnel.codes import error_of

_MAX_ANSWER = 64 * 1024
_CODE = b"ngrok-error-code"
_HEADERS = {"ngrok-skip-browser-warning": "1", "User-Agent": "footlight"}  # a free account's edge asks browsers first
_TRY = 5.0  # s: an edge that takes a request and never answers it is asked again


class Answer(NamedTuple):
    """What a URL answered."""

    status: int
    body: bytes
    edge_error: str | None  # ngrok's own code: its edge answered, not the session; an upstream can never set it


async def fetch(url: str, headers: dict[str, str]) -> tuple[int, bytes]:
    """GET a URL once: status and body. Raises OSError, h11.RemoteProtocolError or trio.BrokenResourceError."""
    answer = await ask(url, headers)
    return answer.status, answer.body


async def ask(url: str, headers: dict[str, str]) -> Answer:
    """GET a URL once. Raises OSError, h11.RemoteProtocolError or trio.BrokenResourceError."""
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
        status, body, edge_error = 0, b"", None
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(bytes(await stream.receive_some(16384)))
            elif isinstance(event, h11.Response):
                status = event.status_code
                edge_error = next((value.decode("latin-1") for name, value in event.headers if name == _CODE), None)
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > _MAX_ANSWER:
                    break
            elif isinstance(event, (h11.EndOfMessage, h11.ConnectionClosed)):
                break
        return Answer(status, body, edge_error)


async def verify(url: str, expected: bytes, *, headers: dict[str, str], deadline: float, pause: float = 0.1) -> None:
    """Return once the URL answers 200 with `expected` in its body; `TunnelError` after `deadline` seconds.

    A tunnel may need a moment until the whole edge knows it, so a refusal is asked again after a pause, which doubles.
    """
    last, code = "no answer", None
    with trio.move_on_after(deadline):
        while True:
            try:
                with trio.fail_after(_TRY):
                    answer = await ask(url, {**_HEADERS, **headers})
            except (OSError, h11.RemoteProtocolError, trio.BrokenResourceError, trio.TooSlowError) as error:
                last, code = repr(error), None
            else:
                if answer.status == 200 and expected in answer.body and not answer.edge_error:
                    return
                last = f"status {answer.status}" if answer.status != 200 else "something else answers there"
                code = answer.edge_error
            await trio.sleep(pause)
            pause = min(2.0, pause * 2)
    if code is not None:
        raise error_of(code, last)
    raise TunnelError("url_not_reachable", f"the URL did not answer within {deadline:g} s ({last})")
