"""What every tunnel provider keeps, held against the local one; and the few words around a tunnel."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import pytest
import trio

from tests.support import children, descriptors, steps_of
from tunnel import Tunnel, TunnelError, TunnelProvider, open_provider
from tunnel.probe import fetch


@asynccontextmanager
async def answering(body: bytes) -> AsyncIterator[int]:
    """A port of 127.0.0.1 that answers every request with `body`."""

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            request = b""
            while b"\r\n\r\n" not in request and (more := await stream.receive_some()):
                request += more
            if request:
                await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


class ProviderConformance:
    """Subclass as `Test…` and give `open_provider`: what a session relies on, whichever provider gives its URL."""

    patience = 10.0  # s

    def open_provider(self) -> AbstractAsyncContextManager[TunnelProvider]:
        raise NotImplementedError

    async def test_url_has_the_form_that_sessions_build_on(self) -> None:
        with trio.fail_after(self.patience):
            async with self.open_provider() as provider, answering(b"x") as port, provider.open(port) as tunnel:
                assert tunnel.url.startswith(("http://", "https://"))
                assert not tunnel.url.endswith("/")

    async def test_url_leads_to_its_port(self) -> None:
        with trio.fail_after(self.patience):
            async with self.open_provider() as provider, answering(b"this one") as port, provider.open(port) as tunnel:
                assert await fetch(tunnel.url + "/health", {}) == (200, b"this one")

    async def test_two_ports_have_two_urls_each_leading_to_its_own(self) -> None:
        with trio.fail_after(self.patience):
            async with self.open_provider() as provider, answering(b"one") as one, answering(b"two") as two:
                async with provider.open(one) as first, provider.open(two) as second:
                    assert first.url != second.url
                    assert (await fetch(first.url, {}))[1] == b"one"
                    assert (await fetch(second.url, {}))[1] == b"two"

    async def test_url_stays_while_another_one_goes(self) -> None:
        with trio.fail_after(self.patience):
            async with self.open_provider() as provider, answering(b"one") as one, answering(b"two") as two:
                async with provider.open(one) as first:
                    async with provider.open(two):
                        pass
                    assert (await fetch(first.url, {}))[1] == b"one"

    async def test_url_no_longer_answers_when_tunnel_and_port_are_gone(self) -> None:
        with trio.fail_after(self.patience):
            async with self.open_provider() as provider:
                async with answering(b"mine") as port, provider.open(port) as tunnel:
                    pass
                try:
                    status, body = await fetch(tunnel.url, {})
                except (OSError, trio.BrokenResourceError):
                    return
                assert status >= 400
                assert b"mine" not in body

    async def test_error_of_the_body_comes_out_as_it_is(self) -> None:
        with trio.fail_after(self.patience):
            async with self.open_provider() as provider, answering(b"x") as port:
                with pytest.raises(ZeroDivisionError):
                    async with provider.open(port):
                        raise ZeroDivisionError

    async def test_nothing_is_left_wherever_it_is_cancelled(self) -> None:
        async def body() -> None:
            async with self.open_provider() as provider, provider.open(9) as tunnel:
                await trio.lowlevel.checkpoint()
                assert tunnel.url

        before = descriptors(), children()
        with trio.fail_after(self.patience):
            steps = await steps_of(body)
            assert (descriptors(), children()) == before
            for step in range(1, steps + 1):
                await steps_of(body, step)
                assert (descriptors(), children()) == before, f"cancelled at step {step}"


class TestLocalProvider(ProviderConformance):
    def open_provider(self) -> AbstractAsyncContextManager[TunnelProvider]:
        return open_provider("local")

    async def test_url_is_the_ports_own(self) -> None:
        async with open_provider("local") as provider, provider.open(8123) as tunnel:
            assert provider.name == "local"
            assert tunnel.url == "http://127.0.0.1:8123"


async def test_provider_that_there_is_not_is_an_error_with_its_name() -> None:
    with pytest.raises(TunnelError, match="'nowhere'") as error:
        async with open_provider("nowhere"):
            pass
    assert error.value.code == "unknown_provider"


@pytest.mark.parametrize(
    ("url", "websocket_url"),
    [
        ("http://127.0.0.1:1", "ws://127.0.0.1:1/ws"),
        ("https://a.example", "wss://a.example/ws"),
        ("https://http.example/s/http", "wss://http.example/s/http/ws"),
    ],
)
def test_event_stream_has_the_scheme_that_goes_with_its_url(url, websocket_url) -> None:
    assert Tunnel(url).websocket_url == websocket_url


def test_tunnel_error_says_code_and_detail() -> None:
    error = TunnelError("ERR_X_108", "too many")
    assert (error.code, error.detail, str(error)) == ("ERR_X_108", "too many", "ERR_X_108: too many")
