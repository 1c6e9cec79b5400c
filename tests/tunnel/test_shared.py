"""A path for each session below one URL: on a listener of its own, and behind somebody's proxy."""

import socket
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

import h11
import pytest
import trio
import trio.testing

from tests.tunnel.conformance import Answering, ProviderConformance, answering, body_at, provider_of
from tunnel import Lost, Restored, Tunnel, TunnelError, TunnelProvider
from tunnel.choose import Wishes
from tunnel.probe import fetch
from tunnel.shared import SharedProvider


def free_port() -> int:
    with socket.socket() as asking:
        asking.bind(("127.0.0.1", 0))
        return asking.getsockname()[1]


class TestStaticProvider(ProviderConformance):
    """The proxy is left out: its URL is the shared listener's own (nginx is in tests/system)."""

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path):
        self.folder = tmp_path

    def open_provider(self) -> AbstractAsyncContextManager[TunnelProvider]:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        return provider_of(Wishes(name="static", folder=self.folder, public_url=url, shared_port=port))

    async def test_path_is_not_found_before_and_gone_after_its_life(self) -> None:
        async with self.open_provider() as provider, answering() as entrance:
            async with provider.open(entrance) as tunnel:
                base, _, slug = tunnel.url.rpartition("/")
                assert len(slug) == 32
                assert (await fetch(f"{base}/{'0' * 32}/health", {}))[0] == 404
            assert (await fetch(f"{tunnel.url}/health", {}))[0] == 410

    async def test_path_without_its_slash_is_led_to_it(self) -> None:
        async with self.open_provider() as provider, answering() as entrance, provider.open(entrance) as tunnel:
            assert (await fetch(tunnel.url + "?token=x", {}))[0] == 302
            assert entrance.seen == []

    async def test_connections_that_a_session_shares_end_with_its_port(self) -> None:
        asked, go_on = trio.Event(), trio.Event()

        class Slow(Answering):
            async def respond(self, request):
                asked.set()
                await go_on.wait()
                return await super().respond(request)

        async with self.open_provider() as provider, trio.open_nursery() as nursery:
            async with answering(entrance=Slow()) as entrance:
                async with provider.open(entrance) as tunnel:
                    nursery.start_soon(_until_cut, tunnel.url + "/slow")
                    await asked.wait()
                    assert entrance.server.connections == 1
                nursery.start_soon(_soon, go_on)
            assert entrance.server.connections == 0


async def _soon(event: trio.Event) -> None:
    await trio.testing.wait_all_tasks_blocked()
    event.set()


async def _until_cut(url: str) -> None:
    try:
        await fetch(url, {})
    except (OSError, trio.BrokenResourceError, h11.RemoteProtocolError):
        return
    raise AssertionError("the connection was not cut")


class NoMounts:
    number = 0

    def mounted(self, path, entrance):
        return nullcontext()


@asynccontextmanager
async def shared_on(bases):
    """A shared provider on base tunnels of ours, one after the other; an error is what it gets instead."""

    @asynccontextmanager
    async def open_base():
        base = bases.pop(0)
        if isinstance(base, TunnelError):
            raise base
        yield base

    shared = SharedProvider("ngrok", NoMounts())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shared.keep, open_base)
        yield shared
        nursery.cancel_scope.cancel()


async def test_what_becomes_of_the_base_is_told_to_every_session(autojump_clock) -> None:
    base = Tunnel("https://one.example")
    async with shared_on([base]) as shared, shared.open(Answering()) as first, shared.open(Answering()) as second:
        base.tell(Lost("x", "y"))
        base.tell(Restored("https://one.example", "https://two.example", 2.0))
        for tunnel in (first, second):
            path = tunnel.url[-len("/s/") - 32 :]
            assert await tunnel.next_change() == Lost("x", "y")
            assert await tunnel.next_change() == Restored(
                f"https://one.example{path}", f"https://two.example{path}", 2.0
            )
            assert tunnel.url == f"https://two.example{path}"


async def test_base_that_is_given_up_ends_every_session_and_is_opened_again_for_the_next(autojump_clock) -> None:
    one, two = Tunnel("https://one.example"), Tunnel("https://two.example")
    async with shared_on([one, two]) as shared:
        async with shared.open(Answering()) as tunnel:
            one.tell(TunnelError("gone", "for good"))
            with pytest.raises(TunnelError, match="for good"):
                await tunnel.next_change()
        async with shared.open(Answering()) as tunnel:
            assert tunnel.url.startswith("https://two.example/s/")


async def test_base_that_cannot_be_had_is_asked_for_once_for_each_who_wants_it(autojump_clock) -> None:
    errors = [TunnelError("first", "no"), TunnelError("second", "no"), Tunnel("https://there.example")]
    async with shared_on(errors) as shared:
        await trio.sleep(1000)
        assert len(errors) == 2
        with pytest.raises(TunnelError, match="second"):
            async with shared.open(Answering()):
                pass
        async with shared.open(Answering()) as tunnel:
            assert tunnel.url.startswith("https://there.example/s/")


async def test_body_reaches_the_session_through_the_shared_listener(tmp_path) -> None:
    port = free_port()
    wishes = Wishes(name="static", folder=tmp_path, public_url=f"http://127.0.0.1:{port}/", shared_port=port)
    async with provider_of(wishes) as provider, answering(b"me") as entrance, provider.open(entrance) as tunnel:
        assert await body_at(tunnel) == b"me"
        assert entrance.seen[0].mount == tunnel.url.removeprefix(f"http://127.0.0.1:{port}")
