"""What every tunnel provider keeps: subclass `ProviderConformance` as `Test…` and give `open_provider`."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, cast

import pytest
import trio

from daemon.clients import http
from daemon.clients.mounts import open_mounts
from daemon.clients.port import Port, converse
from daemon.config import Config
from daemon.log import Log
from daemon.services import open_services
from daemon.serving import Server, open_listeners, port_of
from tests.support import descriptors, steps_of
from tunnel import Tunnel, TunnelProvider
from tunnel.choose import Wishes, open_provider
from tunnel.probe import fetch

__all__ = ["Answering", "ProviderConformance", "answering", "body_at", "provider_of"]


class Answering:
    """A session's port as far as a provider is concerned: answers every request with one body."""

    def __init__(self, body: bytes = b"x") -> None:
        self.body = body
        self.number = 9
        self.seen: list[http.Request] = []
        self.server = Server(self._handle, max_connections=100, user_timeout=10)

    async def _handle(self, socket: trio.SocketStream) -> None:
        await converse(socket, lambda request: (cast("Port", self), request), Config())

    async def respond(self, request: http.Request) -> http.Response:
        self.seen.append(request)
        return http.Response(200, self.body)


@asynccontextmanager
async def answering(body: bytes = b"x", *, entrance: Answering | None = None) -> AsyncIterator[Answering]:
    """An entrance that listens."""
    entrance = entrance or Answering(body)
    listeners = await open_listeners("127.0.0.1", 0, 10)
    entrance.number = port_of(listeners)
    async with open_services() as services:
        await services.start(entrance.server.serve, listeners)
        yield entrance


@asynccontextmanager
async def provider_of(wishes: Wishes) -> AsyncIterator[TunnelProvider]:
    """A provider with the daemon's own shared listener."""
    config = Config()

    def mounts(number: int) -> AbstractAsyncContextManager[Any]:
        return open_mounts(config, number)

    async with open_provider(wishes, mounts, Log("footlight")) as provider:
        yield provider


async def body_at(tunnel: Tunnel) -> bytes:
    """What a URL answers."""
    _, body = await fetch(tunnel.url + "/health", {"ngrok-skip-browser-warning": "1"})
    return body


class ProviderConformance:
    """What a session relies on, whichever provider gives its URL."""

    patience = 20.0  # s

    def open_provider(self) -> AbstractAsyncContextManager[TunnelProvider]:
        raise NotImplementedError

    async def test_url_has_the_form_that_sessions_build_on(self) -> None:
        with trio.fail_after(self.patience):
            async with self.open_provider() as provider, answering() as entrance, provider.open(entrance) as tunnel:
                assert tunnel.url.startswith(("http://", "https://"))
                assert not tunnel.url.endswith("/")

    async def test_url_leads_to_its_port(self) -> None:
        with trio.fail_after(self.patience):
            async with (
                self.open_provider() as provider,
                answering(b"this one") as entrance,
                provider.open(entrance) as tunnel,
            ):
                assert await body_at(tunnel) == b"this one"
                assert entrance.seen[-1].path == "/health"

    async def test_two_ports_have_two_urls_each_leading_to_its_own(self) -> None:
        with trio.fail_after(self.patience):
            async with self.open_provider() as provider, answering(b"one") as one, answering(b"two") as two:
                async with provider.open(one) as first, provider.open(two) as second:
                    assert first.url != second.url
                    assert await body_at(first) == b"one"
                    assert await body_at(second) == b"two"

    async def test_url_stays_while_another_one_goes(self) -> None:
        with trio.fail_after(self.patience):
            async with self.open_provider() as provider, answering(b"one") as one, answering(b"two") as two:
                async with provider.open(one) as first:
                    async with provider.open(two):
                        pass
                    assert await body_at(first) == b"one"

    async def test_url_no_longer_answers_when_tunnel_and_port_are_gone(self) -> None:
        with trio.fail_after(self.patience):
            async with self.open_provider() as provider:
                async with answering(b"mine") as entrance, provider.open(entrance) as tunnel:
                    pass
                try:
                    status, body = await fetch(tunnel.url + "/health", {})
                except (OSError, trio.BrokenResourceError):
                    return
                assert status >= 400
                assert b"mine" not in body

    async def test_url_still_answers_while_its_user_is_being_cancelled(self) -> None:
        with trio.fail_after(self.patience):
            async with self.open_provider() as provider, answering(b"still") as entrance:
                with trio.CancelScope() as scope:
                    async with provider.open(entrance) as tunnel:
                        try:
                            scope.cancel()
                            await trio.sleep_forever()
                        finally:
                            with trio.move_on_after(5, shield=True):
                                assert await body_at(tunnel) == b"still"

    async def test_error_of_the_body_comes_out_as_it_is(self) -> None:
        with trio.fail_after(self.patience):
            async with self.open_provider() as provider, answering() as entrance:
                with pytest.raises(ZeroDivisionError):
                    async with provider.open(entrance):
                        raise ZeroDivisionError

    async def test_twenty_opened_and_closed_at_once_are_not_mixed_up(self) -> None:
        urls: set[str] = set()

        async def one(provider: TunnelProvider, number: int) -> None:
            body = b"session %d" % number
            async with answering(body) as entrance, provider.open(entrance) as tunnel:
                urls.add(tunnel.url)
                assert await body_at(tunnel) == body

        with trio.fail_after(self.patience):
            async with self.open_provider() as provider, trio.open_nursery() as nursery:
                for number in range(20):
                    nursery.start_soon(one, provider, number)
        assert len(urls) == 20

    async def test_nothing_is_left_wherever_it_is_cancelled(self) -> None:
        with trio.fail_after(self.patience):
            async with self.open_provider() as provider:

                async def body() -> None:
                    async with provider.open(Answering()) as tunnel:
                        await trio.lowlevel.checkpoint()
                        assert tunnel.url

                await body()  # whatever is made on first use
                before = descriptors()
                steps = await steps_of(body)
                assert descriptors() == before
                for step in range(1, steps + 1):
                    await steps_of(body, step)
                    assert descriptors() == before, f"cancelled at step {step}"
