"""The connection to the model, on which the pieces of an answer gather.

A piece that is read alone costs a wake-up and a way through five layers, which is most of what it costs at all. So whoever reads
an answer is told when all that came has been passed on to it (`Gathered.answering`), and may let a window's worth come together in
the kernel before more is read (`Gathered.gather`), which then goes up as one chunk. Imported late, with the SDK.
"""

import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.request import getproxies

import anthropic
import httpcore2
import httpx2
import trio

from daemon.agent.chunks import Chunks
from daemon.agent.windows import Windows

# As the SDK's own client: a minute of silence before the first question, one between two (the first has no name on macOS).
_KEEP_ALIVE = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)] + [
    (socket.IPPROTO_TCP, option, value)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 60), ("TCP_KEEPCNT", 5))
    if (option := getattr(socket, name, None)) is not None
]
_ERRORS = (
    httpcore2.TimeoutException,
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.ProxyError,
    httpcore2.UnsupportedProtocol,
)


def open_client(
    api_key: str | None, base_url: str | None, windows: Windows, *, loopback: bool
) -> anthropic.AsyncAnthropic:
    """The SDK's client for one place, on these connections; blocks, as it reads the system's certificates.

    A proxy that the environment names is left to the SDK: text then comes piece by piece. `loopback` is without proxy or
    certificate, whatever the environment says.
    """
    if loopback:
        http = anthropic.DefaultAsyncHttpxClient(
            trust_env=False, transport=Transport(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), windows)
        )
    elif getproxies().keys() - {"no"}:
        http = anthropic.DefaultAsyncHttpxClient()
    else:
        http = anthropic.DefaultAsyncHttpxClient(transport=Transport(httpx2.create_ssl_context(), windows))
    # Without retries: asking.py tries again.
    return anthropic.AsyncAnthropic(api_key=api_key, base_url=base_url, max_retries=0, http_client=http)


class Gathered(httpcore2.AsyncNetworkStream):
    """A connection."""

    def __init__(self, stream: httpcore2.AsyncNetworkStream, windows: Windows) -> None:
        self._stream = stream
        self._windows = windows
        self._socket: trio.socket.SocketType = stream.get_extra_info("socket")
        self._encrypted = stream.get_extra_info("ssl_object") is not None
        self._when_dry: Callable[[], Awaitable[None]] | None = None
        self._chunks: Chunks | None = None
        self._last = b""  # what was read last: at the end of a head, all that was read of its body
        self._more = False  # came than was asked for, and lies in the TLS beneath
        self._gathered = False  # just now: something most likely lies there

    @contextmanager
    def answering(self, when_dry: Callable[[], Awaitable[None]], *, chunked: bool) -> Iterator[None]:
        """The body of an answer, after its head: `when_dry` is called before each read, when all that came was passed on."""
        _, found, body = self._last.partition(b"\r\n\r\n")
        self._last = b""
        self._when_dry, self._chunks = when_dry, Chunks(body) if chunked and found else None
        try:
            yield
        finally:
            self._when_dry = self._chunks = None

    async def gather(self) -> None:
        """Wait until what has come is worth a read (windows.py)."""
        if self._more:
            await trio.lowlevel.checkpoint()
            return
        await self._windows.gather(self._socket)
        self._gathered = True

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """What has come, its whole chunks as one; nothing at the end alone."""
        while True:
            if self._when_dry is not None:
                await self._when_dry()
            data = await self._read(max_bytes, timeout)
            if self._chunks is None:
                self._last = data
                return data
            if (joined := self._chunks.join(data)) or not data:
                return joined

    async def _read(self, max_bytes: int, timeout: float | None) -> bytes:
        """What has come; under TLS of all records that have, which the stream would hand out one by one."""
        gathered, self._gathered = self._gathered, False
        if gathered and not self._encrypted:  # a read that may wait costs a scope and two turns of the scheduler more
            try:
                return os.read(self._socket.fileno(), max_bytes)
            except BlockingIOError:
                pass
            except OSError as error:
                raise httpcore2.ReadError(str(error)) from error
        data = read = await self._stream.read(max_bytes, timeout)
        while self._encrypted and read and len(data) < max_bytes:
            read = b""
            with trio.CancelScope() as here, suppress(httpcore2.NetworkError):  # which the next read would meet again
                here.deadline = trio.current_time()  # set within, it counts when the task would wait, not before
                read = await self._stream.read(max_bytes - len(data), timeout)
            data += read
        self._more = self._encrypted and len(data) >= max_bytes
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of it."""
        await self._stream.write(buffer, timeout)

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """The same connection, encrypted."""
        return Gathered(await self._stream.start_tls(ssl_context, server_hostname, timeout), self._windows)

    async def aclose(self) -> None:
        """Close it."""
        await self._stream.aclose()

    def get_extra_info(self, info: str) -> Any:
        """What httpcore asks of its streams, `socket` and `ssl_object` among it."""
        return self._stream.get_extra_info(info)


class _Backend(httpcore2.TrioBackend):
    """Connects."""

    def __init__(self, windows: Windows) -> None:
        self._windows = windows

    async def connect_tcp(self, *args: Any, **kwargs: Any) -> httpcore2.AsyncNetworkStream:
        return Gathered(await super().connect_tcp(*args, **kwargs), self._windows)


class Transport(httpx2.AsyncBaseTransport):
    """httpx's own asynchronous transport with these connections: without a proxy, by HTTP/1.1 alone."""

    def __init__(self, verify: ssl.SSLContext, windows: Windows) -> None:
        limits = anthropic.DEFAULT_CONNECTION_LIMITS
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=verify,
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            socket_options=_KEEP_ALIVE,
            network_backend=_Backend(windows),
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request; the response's body is not read yet."""
        url = request.url
        asked = httpcore2.Request(
            method=request.method,
            url=httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        try:
            response = await self._pool.handle_async_request(asked)
        except _ERRORS as error:
            raise _of_httpx(error) from error
        return httpx2.Response(
            response.status, headers=response.headers, stream=_Body(response.stream), extensions=response.extensions
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._pool.aclose()


class _Body(httpx2.AsyncByteStream):
    """A response's body, as it comes; iterated once."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._pieces: AsyncIterator[bytes] = aiter(stream)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._pieces)
        except _ERRORS as error:
            raise _of_httpx(error) from error

    async def aclose(self) -> None:
        await self._stream.aclose()


def _of_httpx(error: Exception) -> httpx2.HTTPError:
    """The two libraries call their errors by the same names."""
    kind: type[httpx2.HTTPError] = getattr(httpx2, type(error).__name__)
    return kind(str(error))
