"""The local provider, and the few words around a tunnel."""

from contextlib import AbstractAsyncContextManager

import pytest
import trio

from tests.tunnel.conformance import Answering, ProviderConformance, provider_of
from tunnel import Lost, Restored, Tunnel, TunnelError, TunnelProvider
from tunnel.choose import Wishes


class TestLocalProvider(ProviderConformance):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path):
        self.folder = tmp_path

    def open_provider(self) -> AbstractAsyncContextManager[TunnelProvider]:
        return provider_of(Wishes(name="local", folder=self.folder))

    async def test_url_is_the_ports_own(self) -> None:
        async with self.open_provider() as provider, provider.open(Answering()) as tunnel:
            assert provider.name == "local"
            assert tunnel.url == "http://127.0.0.1:9"

    async def test_local_provider_writes_nothing(self) -> None:
        async with self.open_provider():
            assert list(self.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "websocket_url"),
    [
        ("http://127.0.0.1:1", "ws://127.0.0.1:1/ws"),
        ("https://a.example", "wss://a.example/ws"),
        ("https://http.example/s/http", "wss://http.example/s/http/ws"),
    ],
)
async def test_event_stream_has_the_scheme_that_goes_with_its_url(url, websocket_url) -> None:
    assert Tunnel(url).websocket_url == websocket_url


async def test_changes_come_in_their_order_and_move_the_url() -> None:
    tunnel = Tunnel("https://old.example")
    lost, back = Lost("x", "y"), Restored("https://old.example", "https://new.example", 1.5)
    tunnel.tell(lost)
    tunnel.tell(back)
    tunnel.tell(TunnelError("gone", "for good"))
    assert tunnel.url == "https://new.example"
    assert [await tunnel.next_change(), await tunnel.next_change()] == [lost, back]
    with pytest.raises(TunnelError, match="gone"):
        await tunnel.next_change()


async def test_no_change_is_waited_for_without_an_end(autojump_clock) -> None:
    with trio.move_on_after(10_000) as waiting:
        await Tunnel("https://a.example").next_change()
    assert waiting.cancelled_caught


def test_tunnel_error_says_code_and_detail() -> None:
    error = TunnelError("ERR_X_108", "too many")
    assert (error.code, error.detail, str(error)) == ("ERR_X_108", "too many", "ERR_X_108: too many")
