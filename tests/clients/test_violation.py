"""A client that breaks the protocol is told so: trio-websocket alone would end the connection without a word."""

import pytest
import trio
import wsproto

from tests.clients.room import RawClient, open_listening_room

BROKEN = {
    "a text that is not UTF-8": b"\x81\x81\0\0\0\0\xff",
    "an unmasked frame": b"\x81\x01x",
    "a reserved bit": b"\xc1\x81\0\0\0\0x",
    "an unknown opcode": b"\x83\x81\0\0\0\0x",
    "a continuation of nothing": b"\x80\x81\0\0\0\0x",
    "a ping that is too long": b"\x89\xfe\x00\x7e\0\0\0\0" + b"x" * 126,
}


@pytest.mark.parametrize("frame", BROKEN.values(), ids=BROKEN)
async def test_broken_frame_is_answered_by_the_close_that_says_do_not_come_back(tmp_path, frame):
    with trio.fail_after(20):
        async with open_listening_room(tmp_path) as (room, url):
            port = int(url.rpartition(":")[2].split("/")[0])
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                client = RawClient(stream)
                await client.open(room.path())
                await client.until(wsproto.events.AcceptConnection)
                await stream.send_all(frame)
                close = await client.until(wsproto.events.CloseConnection)
                assert (close.code, close.reason) == (4502, "protocol violation")


async def test_close_of_the_client_is_answered_by_its_own_code(tmp_path):
    with trio.fail_after(20):
        async with open_listening_room(tmp_path) as (room, url):
            port = int(url.rpartition(":")[2].split("/")[0])
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                client = RawClient(stream)
                await client.open(room.path())
                await client.until(wsproto.events.AcceptConnection)
                await client.send(wsproto.events.CloseConnection(code=1002))
                assert (await client.until(wsproto.events.CloseConnection)).code == 1002
