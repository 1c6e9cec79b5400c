"""Several sessions on one listener: the same is answered below a path as on a port, and nothing else is."""

from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import memory_stream_pair
from trio_websocket import ConnectionClosed

from daemon.clients.follow import open_client
from daemon.clients.mounts import Mounts, open_mounts
from tests.clients.room import Answers, head, open_room
from tests.support import descriptors, events_until, next_event

SLUG = "/s/" + "a" * 32


@pytest.fixture
async def room(tmp_path):
    with open_room(tmp_path) as opened:
        opened.workspace.write("index.html", b"<h1>home</h1>")
        opened.workspace.write("menu/index.html", b"menu")
        yield opened


@asynccontextmanager
async def connection(mounts):
    theirs, ours = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mounts.handle, ours)
        try:
            yield theirs
        finally:
            await trio.aclose_forcefully(theirs)
            nursery.cancel_scope.cancel()


async def get(mounts, target, method="GET", **headers):
    with trio.fail_after(5):
        async with connection(mounts) as stream:
            await stream.send_all(head(target, method, **headers))
            return await Answers(stream).next(method)


async def test_session_is_found_below_its_path_while_it_is_mounted_and_never_again(room):
    mounts = Mounts(room.config)
    assert (await get(mounts, f"{SLUG}/health")).status == 404
    with mounts.mounted(SLUG, room.port):
        assert (await get(mounts, f"{SLUG}/health")).body == b'{"status":"healthy"}'
        assert (await get(mounts, f"{SLUG}b/health")).status == 404
        assert (await get(mounts, "/s//health")).status == 404
    assert (await get(mounts, f"{SLUG}/health")).status == 410
    assert (await get(mounts, f"{SLUG}/ws", Connection="Upgrade", Upgrade="websocket")).status == 410


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/", 404),
        ("/health", 200),
        ("/s/", 404),
        ("/s", 404),
        (f"{SLUG}", 302),
        (f"{SLUG}/", 401),
        (f"/S/{'a' * 32}/health", 404),
        (f"/s/%61{'a' * 31}/health", 404),
        (f"/x/..{SLUG}/health", 404),
        (f"/{SLUG}/health", 404),
        (f"{SLUG}/../{'b' * 32}/health", 401),
        ("/ws", 404),
    ],
)
async def test_nothing_but_the_path_itself_leads_to_a_session(room, target, status):
    mounts = Mounts(room.config)
    with mounts.mounted(SLUG, room.port):
        assert (await get(mounts, target)).status == status


async def test_preview_below_a_path_has_a_cookie_and_redirects_of_that_path(room):
    mounts = Mounts(room.config)
    with mounts.mounted(SLUG, room.port):
        entered = await get(mounts, f"{SLUG}/menu/?token={room.tokens.watch}")
        assert (entered.status, entered.headers["location"]) == (302, f"{SLUG}/menu/")
        cookie, *attributes = entered.headers["set-cookie"].split("; ")
        assert attributes == [f"Path={SLUG}/", "HttpOnly", "SameSite=Lax"]
        assert (await get(mounts, f"{SLUG}/menu", Cookie=cookie)).headers["location"] == f"{SLUG}/menu/"
        assert (await get(mounts, f"{SLUG}/menu/", Cookie=cookie)).body == b"menu"


@pytest.mark.parametrize(
    ("said", "secure"),
    [("https", True), ("http", False), ("http, https", True), ("https, http", False), ("HTTPS", True), ("", False)],
)
async def test_last_proxy_says_whether_it_was_asked_by_https_and_only_here(room, said, secure):
    mounts, enter = Mounts(room.config), f"/?token={room.tokens.watch}"
    room.port.preview.secure = not secure
    with mounts.mounted(SLUG, room.port):
        shared = await get(mounts, SLUG + enter, X_Forwarded_Proto=said)
    assert shared.headers["set-cookie"].endswith("; Secure") is secure
    alone = await room.get(enter, X_Forwarded_Proto=said)
    assert alone.headers["set-cookie"].endswith("; Secure") is not secure


async def test_one_connection_asks_several_sessions_one_after_the_other(room, tmp_path):
    (tmp_path / "other").mkdir()
    with open_room(tmp_path / "other") as other:
        other.workspace.write("index.html", b"other")
        mounts, elsewhere = Mounts(room.config), "/s/" + "b" * 32
        with mounts.mounted(SLUG, room.port), mounts.mounted(elsewhere, other.port), trio.fail_after(5):
            cookies = f"footlight_s1={other.tokens.preview}"
            async with connection(mounts) as stream:
                answers = Answers(stream)
                await stream.send_all(head(f"{SLUG}/health") + head(f"{elsewhere}/", Cookie=cookies))
                assert (await answers.next()).body == b'{"status":"healthy"}'
                assert (await answers.next()).body == b"other"
                await stream.send_all(head(f"{SLUG}/", Cookie=cookies))
                assert (await answers.next()).status == 401


async def test_token_of_one_session_opens_no_other(room, tmp_path):
    (tmp_path / "other").mkdir()
    with open_room(tmp_path / "other") as other:
        mounts = Mounts(room.config)
        with mounts.mounted(SLUG, room.port):
            for path in ("/", "/ws"):
                answer = await get(
                    mounts,
                    f"{SLUG}{path}?token={other.tokens.control}",
                    Connection="Upgrade",
                    Upgrade="websocket",
                    Sec_WebSocket_Version="13",
                    Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==",
                )
                assert answer.status == 401


async def test_websocket_below_a_path_is_one_of_its_sessions_and_nothing_is_left(room):
    before = descriptors()
    with trio.fail_after(5):
        async with open_mounts(room.config, 0) as mounts:
            with mounts.mounted(SLUG, room.port):
                room.write_many(3)
                async with open_client(f"ws://127.0.0.1:{mounts.number}{SLUG}{room.path(offset=1)}") as ws:
                    seen = await events_until(ws, lambda event: event.get("offset") == 3)
                    assert [event["offset"] for event in seen if "offset" in event] == [2, 3]
                    assert room.port.server.connections == len(room.hub) == 1
                    room.journal.end()
                    with pytest.raises(ConnectionClosed):
                        await next_event(ws)
                await room.port.server.drain()
            assert len(room.hub) == 0
    assert descriptors() == before
