"""The stand-in's edge: public URLs, told apart by address, led to the upstreams that agents have bound.

`*.localhost` may not resolve, so a name is an address of 127.0.0.0/8; all have one port. What is offline is answered as ngrok's
edge does: 404 with an error header of its own.
"""

import random
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio

_STATUS = {
    "ERR_NGROK_3200": b"404 Not Found",
    "ERR_NGROK_6024": b"200 OK",
    "ERR_NGROK_727": b"429 Too Many Requests",
}
Stream = trio.abc.HalfCloseableStream


@dataclass
class Route:
    """An endpoint that is online."""

    upstream: str
    join: Callable[[str], Awaitable[None]]
    free: bool


@dataclass
class Request:
    """The head of a request."""

    lines: list[bytes]
    body: bytes
    headers: dict[bytes, bytes] = field(default_factory=dict)


class Edge:
    """Made by `open_edge`."""

    def __init__(self, nursery: trio.Nursery, addresses: list[str], port: int, certificate: Path | None) -> None:
        self.nursery = nursery
        self.certificate = certificate
        self.port = port
        self.error = ""
        self._context = None
        if certificate is not None:
            self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self._context.load_cert_chain(certificate)
        self._addresses = addresses
        self._routes: dict[str, dict[str, Route]] = {}  # by URL, by the endpoint's name
        self._open: dict[trio.SocketStream, str] = {}

    @property
    def connections(self) -> int:
        """How many public connections are open."""
        return len(self._open)

    def listen(self) -> None:
        """At every name that may be given out, from the start: what a test counts does not change."""
        for address in self._addresses:
            listener = trio.SocketListener(_listen(address, self.port))
            self.nursery.start_soon(trio.serve_listeners, partial(self._serve, self._url(address)), [listener])

    def _url(self, address: str) -> str:
        return f"http{'s' if self._context else ''}://{address}:{self.port}"

    def new_url(self) -> str:
        """A name that nothing has had."""
        return self._url(self._addresses.pop())

    def online(self, url: str, name: str, route: Route) -> None:
        """Lead a URL to an upstream; several on one URL share its traffic."""
        self._routes.setdefault(url, {})[name] = route

    def offline(self, url: str, name: str) -> None:
        """Lead it there no more; connections that are open stay."""
        self._routes.get(url, {}).pop(name, None)

    def cut(self, url: str | None = None) -> None:
        """Cut the connections of a URL, or all."""
        for stream, of in list(self._open.items()):
            if url in {None, of}:
                self.nursery.start_soon(trio.aclose_forcefully, stream)

    async def _serve(self, url: str, socket: trio.SocketStream) -> None:
        self._open[socket] = url
        stream: Stream | trio.SSLStream[trio.SocketStream] = socket
        try:
            if self._context is not None:
                stream = trio.SSLStream(socket, self._context, server_side=True, https_compatible=True)
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError, OSError):
                await self._answer(url, stream, socket)
        finally:
            del self._open[socket]
            await trio.aclose_forcefully(socket)

    async def _answer(
        self, url: str, stream: "Stream | trio.SSLStream[trio.SocketStream]", socket: trio.SocketStream
    ) -> None:
        request = await _read_head(stream)
        if request is None:
            return
        routes = self._routes.get(url)
        route = random.choice(list(routes.values())) if routes else None
        error = self.error or ("" if route is not None else "ERR_NGROK_3200")
        if not error and route is not None and route.free and _shows_interstitial(request):
            error = "ERR_NGROK_6024"
        if error:
            await stream.send_all(_error_page(error, url))
            return
        assert route is not None
        peer = socket.socket.getpeername()
        await route.join(f"{peer[0]}:{peer[1]}")
        host, _, port = route.upstream.removeprefix("http://").partition(":")
        try:
            far = await trio.open_tcp_stream(host.replace("localhost", "127.0.0.1"), int(port))
        except OSError:
            await stream.send_all(_error_page("ERR_NGROK_8012", url))
            return
        async with far:
            await far.send_all(_forwarded(request, url, peer[0]))
            async with trio.open_nursery() as both:
                both.start_soon(_pump, stream, far, both)
                both.start_soon(_pump, far, stream, both)


async def _pump(source: trio.abc.ReceiveStream, sink: trio.abc.SendStream, both: trio.Nursery) -> None:
    # Raw after the first head: a WebSocket passes, and later requests of the connection go on unchanged.
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        while data := await source.receive_some(65536):
            await sink.send_all(data)
    both.cancel_scope.cancel()


async def _read_head(stream: trio.abc.ReceiveStream) -> Request | None:
    data = b""
    while b"\r\n\r\n" not in data:
        more = await stream.receive_some(65536)
        if not more or len(data) > 1 << 20:
            return None
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    request = Request(head.split(b"\r\n"), body)
    for line in request.lines[1:]:
        name, _, value = line.partition(b":")
        request.headers[name.strip().lower()] = value.strip()
    return request


def _shows_interstitial(request: Request) -> bool:
    """The page that a browser gets of a free account, by its User-Agent, before anything else is looked at."""
    headers = request.headers
    return (
        request.lines[0].startswith(b"GET ")
        and headers.get(b"user-agent", b"").startswith(b"Mozilla/")
        and b"ngrok-skip-browser-warning" not in headers
        and b"abuse_interstitial=" not in headers.get(b"cookie", b"")
    )


def _error_page(code: str, url: str) -> bytes:
    page = f"<!DOCTYPE html><html><body>{url} {code}</body></html>".encode()
    status = _STATUS.get(code, b"502 Bad Gateway")
    head = b"HTTP/1.1 %b\r\nContent-Type: text/html\r\nNgrok-Error-Code: %b\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    return head % (status, code.encode(), len(page)) + page


def _forwarded(request: Request, url: str, peer: str) -> bytes:
    """The request as the upstream gets it: what was there is kept, what the edge knows is appended."""
    headers = request.headers
    lines = [line for line in request.lines if not line.lower().startswith(b"x-forwarded-")]
    for name, value in ((b"For", peer.encode()), (b"Proto", url.partition(":")[0].encode())):
        before = headers.get(b"x-forwarded-" + name.lower())
        lines.append(b"X-Forwarded-" + name + b": " + (before + b", " if before else b"") + value)
    lines.append(b"X-Forwarded-Host: " + headers.get(b"host", b""))
    return b"\r\n".join(lines) + b"\r\n\r\n" + request.body


def _listen(address: str, port: int) -> trio.socket.SocketType:
    import socket

    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.listen(128)
    return trio.socket.from_stdlib_socket(listener)


async def make_certificate(folder: Path, addresses: list[str]) -> Path:
    """A self-signed certificate for addresses, with its key in the same file."""
    certificate, key = folder / "edge.pem", folder / "key.pem"
    alternatives = ",".join(f"IP:{address}" for address in addresses)
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=edge", "-addext", f"subjectAltName={alternatives}"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    await trio.to_thread.run_sync(partial(subprocess.run, command, check=True, capture_output=True))
    certificate.write_text(certificate.read_text() + key.read_text())
    return certificate


@asynccontextmanager
async def open_edge(folder: Path, *, tls: bool, names: int) -> AsyncIterator[Edge]:
    """An edge with so many names and, with `tls`, a certificate for all of them."""
    addresses = [f"127.{random.randint(1, 254)}.{random.randint(1, 254)}.{number % 250 + 2}" for number in range(names)]
    certificate = None
    if tls:
        certificate = await make_certificate(folder, addresses)
    probe = _listen(addresses[0], 0)
    port = probe.getsockname()[1]
    probe.close()
    async with trio.open_nursery() as nursery:
        edge = Edge(nursery, addresses, port, certificate)
        edge.listen()
        yield edge
        nursery.cancel_scope.cancel()
