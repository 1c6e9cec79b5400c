"""Hundreds of hostile inputs against both ports of one daemon: nothing of it ends, leaks or disturbs anybody.

Each input goes to the API's port and to a session's port, many at once. Nobody waits for a server's deadline: the client
closes, half of the time by a reset.
"""

import random
import socket
import struct
from collections import Counter
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest
import trio

from daemon.clients.follow import open_client
from tests.clients.room import frame, handshake, head
from tests.support import api, descriptors, events_until, next_event

SEED = 20260101
AT_ONCE = 16
PATIENCE = 1.0  # s; a server that says nothing is left then
PING = b'{"type":"ping"}'


@dataclass(frozen=True)
class Hostile:
    """One input: bytes, and bytes that follow once the handshake was answered."""

    name: str
    first: bytes
    then: bytes = b""


def killers(ws):
    """Heads that are known to have ended servers."""
    upgrade = handshake(ws)
    crlf = b"\r\n"
    request = b"GET / HTTP/1.1\r\nHost: room\r\n"
    post = b"POST /api/chat HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    h2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    heads = {
        "bytes behind an upgrade": upgrade + b"garbage" * 10,
        "a frame behind an upgrade": upgrade + frame(1, PING),
        "half a frame behind an upgrade": upgrade + frame(1, PING)[:5],
        "a request behind an upgrade": upgrade + head("/health"),
        "an upgrade behind an upgrade": upgrade * 3,
        "upgrade, then nul bytes": upgrade + bytes(5000),
        "non-ascii host": handshake(ws, Host="r\xf6\xf6m"),
        "raw bytes in host": upgrade.replace(b"Host: room", b"Host: \xff\xfe\x80"),
        "non-ascii connection": handshake(ws, Connection="Upgr\xe4de, Upgrade"),
        "raw bytes in connection": upgrade.replace(b"Connection: Upgrade", b"Connection: \xff, Upgrade"),
        "raw bytes in upgrade": upgrade.replace(b"Upgrade: websocket", b"Upgrade: websocket\xff"),
        "raw bytes in key": upgrade.replace(b"dGhl", b"\xff\xff\xff\xff"),
        "raw bytes in target": upgrade.replace(b"/ws", b"/ws\xff"),
        "no key": handshake(ws, Sec_WebSocket_Key=""),
        "old version": handshake(ws, Sec_WebSocket_Version="8"),
        "no version": handshake(ws, Sec_WebSocket_Version=""),
        "odd extensions": handshake(ws, Sec_WebSocket_Extensions="permessage-deflate; x=\x01, ;;;,,"),
        "odd protocols": handshake(ws, Sec_WebSocket_Protocol=",, ,\xe4"),
        "upgrade by post": upgrade.replace(b"GET", b"POST"),
        "upgrade with a body": handshake(ws, Content_Length="5") + b"abcde",
        "upgrade chunked": handshake(ws, Transfer_Encoding="chunked") + b"5\r\nabcde\r\n0\r\n\r\n",
        "upgrade in http/1.0": upgrade.replace(b"HTTP/1.1", b"HTTP/1.0"),
        "upgrade without host": upgrade.replace(b"Host: room\r\n", b""),
        "h2c upgrade": head("/", Connection="Upgrade, HTTP2-Settings", Upgrade="h2c", HTTP2_Settings="AAMAAABkAAQ"),
        "h2c upgrade with bytes": head(
            "/", Connection="Upgrade, HTTP2-Settings", Upgrade="h2c", HTTP2_Settings="AAMAAABk"
        )
        + b"\x00" * 100,
        "h2c with bad settings": head(
            "/", Connection="Upgrade, HTTP2-Settings", Upgrade="h2c", HTTP2_Settings="\xe4%%"
        ),
        "http/2 preface": h2,
        "http/2 preface and settings": h2 + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]),
        "http/2 preface and garbage": h2 + b"\xff" * 300,
        "http/2 preface in halves": h2[:14],
        "http/2 headers without settings": h2 + bytes([0, 0, 1, 1, 4, 0, 0, 0, 1, 0x82]),
        "http/2 huge frame": h2 + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01",
        "http/2 window overflow": h2
        + bytes(3)
        + b"\x04"
        + bytes(5)
        + b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x7f\xff\xff\xff",
        "two hosts": request + b"Host: other\r\n\r\n",
        "no host": b"GET / HTTP/1.1\r\n\r\n",
        "two content-lengths": post + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "length and chunked": post + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "negative length": post + b"Content-Length: -1\r\n\r\n",
        "length of letters": post + b"Content-Length: abc\r\n\r\n",
        "length with a plus": post + b"Content-Length: +1\r\n\r\na",
        "huge length": post + b"Content-Length: " + b"9" * 300 + crlf * 2,
        "length longer than the body": post + b"Content-Length: 100\r\n\r\n{}",
        "length over the limit": post + b"Content-Length: 99999999\r\n\r\n" + b"x" * 10_000,
        "bad chunk size": post + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n",
        "negative chunk size": post + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nabc\r\n",
        "huge chunk size": post + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 40 + crlf,
        "endless chunk extension": post + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 20_000,
        "chunk without its end": post + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcXX",
        "trailers without end": post + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * 2000,
        "unknown coding": post + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "two codings": post + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "huge header": request + b"X: " + b"x" * 100_000 + crlf * 2,
        "huge header without end": request + b"X: " + b"x" * 100_000,
        "many headers": request + b"".join(b"X-%d: y\r\n" % number for number in range(3000)) + crlf,
        "huge target": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: room\r\n\r\n",
        "folded header": request + b"X: a\r\n b\r\n c\r\n\r\n",
        "header without colon": request + b"nonsense\r\n\r\n",
        "header without name": request + b": x\r\n\r\n",
        "space before colon": request + b"X : y\r\n\r\n",
        "nul in header": request + b"X: a\x00b\r\n\r\n",
        "bare lf": b"GET / HTTP/1.1\nHost: room\n\n",
        "bare cr": b"GET / HTTP/1.1\rHost: room\r\r",
        "only line ends": crlf * 5000,
        "http/0.9": b"GET /\r\n",
        "http/9.9": b"GET / HTTP/9.9\r\nHost: room\r\n\r\n",
        "unknown method": b"\xc3\xa4 / HTTP/1.1\r\nHost: room\r\n\r\n",
        "connect": b"CONNECT room:443 HTTP/1.1\r\nHost: room\r\n\r\n",
        "absolute target": b"GET http://[::1/ HTTP/1.1\r\nHost: room\r\n\r\n",
        "bracket target": b"GET //[ HTTP/1.1\r\nHost: room\r\n\r\n",
        "bracket host": b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
        "tls": bytes.fromhex("16030100a5010000a10303") + bytes(160),
        "tls, pretending to be http": b"\x16\x03\x01GET / HTTP/1.1\r\n\r\n",
        "ssh": b"SSH-2.0-OpenSSH_9.0\r\n",
        "nothing": b"",
        "one byte": b"G",
        "nul bytes": bytes(20_000),
        "random bytes": random.Random(SEED).randbytes(50_000),
        "expect 100": post + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n",
        "expect nonsense": post + b"Content-Length: 5\r\nExpect: \xff\r\n\r\nabcde",
        "deep json": post + b"Content-Length: 20000\r\n\r\n" + b"[" * 20_000,
        "bad cookie": request + b"Cookie: \xff=;;;=\r\n\r\n",
        "bad range": request + b"Range: bytes=9-1,-,x\r\n\r\n",
        "percent": b"GET /%%%zz%00%ff?%=%&&=&token=%ff HTTP/1.1\r\nHost: room\r\n\r\n",
        "pipelined garbage": head("/health") * 20 + b"garbage\r\n\r\n",
        "pipelined hundreds": head("/health") * 300,
    }
    return [Hostile(name, data) for name, data in heads.items()]


def mutated_heads(ws, count):
    """Valid requests with a few bytes changed."""
    chance = random.Random(SEED)
    body = b'{"message": 1}'  # refused as it is: a mutation must not make a session
    bases = [
        handshake(ws),
        handshake(ws, Origin="http://x", Cookie="a=b") + frame(1, PING),
        head("/health", Accept="*/*", Connection="keep-alive"),
        head("/?a=b", If_None_Match='"x"', If_Modified_Since="Thu, 01 Jan 1970 00:00:00 GMT"),
        head("/api/chat", "POST", Content_Type="application/json", Content_Length=str(len(body))) + body,
        head("/api/sessions?limit=5", Accept="text/event-stream", Last_Event_ID="3"),
    ]
    odd = [
        b"\x00",
        b"\xff",
        b"\r",
        b"\n",
        b"\r\n",
        b" ",
        b":",
        b",",
        b"\t",
        b"\x80",
        b"%",
        b";",
        b"\r\n\r\n",
        b"\xc3\xa4",
    ]
    found = []
    for number in range(count):
        data = bytearray(bases[number % len(bases)])
        for _ in range(chance.choice([1, 1, 2, 3, 8])):
            at = chance.randrange(len(data))
            what = chance.randrange(6)
            if what == 0:
                data[at] ^= 1 << chance.randrange(8)
            elif what == 1:
                data[at:at] = chance.choice(odd)
            elif what == 2:
                del data[at : at + chance.randrange(1, 9)]
            elif what == 3:
                end = at + chance.randrange(1, 40)
                data[at:at] = data[at:end]
            elif what == 4:
                data[at] = chance.randrange(256)
            else:
                data[at : at + 1] = bytes([data[at]]) * chance.choice([2, 100, 3000])
            if not data:
                break
        found.append(Hostile(f"mutated head {number}", bytes(data)))
    return found


def bad_frames(ws, count):
    """Sequences of frames of which at least one is wrong."""
    chance = random.Random(SEED + 1)
    long = bytes(chance.randrange(200, 70_000))
    wrong = [
        *[frame(opcode, PING) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)],
        *[frame(1, PING, reserved=bits) for bits in range(1, 8)],
        *[frame(opcode, b"x", reserved=4) for opcode in (2, 8, 9, 10)],
        frame(1, PING, masked=False),
        frame(9, b"", masked=False),
        frame(8, b"", masked=False),
        *[frame(opcode, b"x", fin=False) for opcode in (8, 9, 10)],
        *[frame(opcode, b"x" * 126) for opcode in (8, 9, 10)],
        frame(0, PING),
        frame(1, b"a", fin=False) + frame(1, b"b"),
        frame(1, b"a", fin=False) + frame(2, b"b"),
        frame(1, b"a", fin=False) + frame(8, b""),
        frame(1, b"\xff\xfe"),
        frame(1, b"\xed\xa0\x80"),
        frame(1, b"\xf0\x9f", fin=False) + frame(0, b"\x41"),
        frame(8, b"\x03"),
        *[frame(8, struct.pack("!H", code)) for code in (0, 999, 1004, 1005, 1006, 1015, 2000, 5000, 65535)],
        frame(8, struct.pack("!H", 1000) + b"\xff\xfe"),
        frame(8, struct.pack("!H", 1000)) + frame(1, PING),
        frame(8, struct.pack("!H", 4001) + b"x" * 123),
        frame(1, PING, size=1 << 40),
        frame(1, PING, size=(1 << 64) - 1),
        frame(1, PING, size=1 << 63),
        frame(1, long, size=300_000),
        frame(2, b"\x00\xff" * 50),
        frame(1, b""),
        frame(2, b""),
        frame(1, b"[" * 60_000),
        frame(1, b"x", fin=False) * 2 + frame(0, b"y"),
        bytes([0x81, 0xFE, 0x00, 0x05]) + bytes(9),  # a longer length than it needs
        bytes([0x81, 0xFF]) + bytes(7) + b"\x05" + bytes(9),
        b"\xff" * 64,
        bytes(64),
        b"GET / HTTP/1.1\r\n\r\n",
        frame(1, PING)[:-1],
        frame(1, PING)[:1],
        frame(1, PING)[:3],
    ]
    right = [frame(1, PING), frame(9, b"hi"), frame(10, b""), frame(1, b'{"ty', fin=False) + frame(0, b'pe":"ping"}')]
    found = [Hostile(f"frame {number}", handshake(ws), data) for number, data in enumerate(wrong)]
    while len(found) < count:
        sequence = [chance.choice(right) for _ in range(chance.randrange(5))]
        sequence += [chance.choice(wrong) for _ in range(chance.randrange(1, 3))]
        chance.shuffle(sequence)
        data = b"".join(sequence)
        if chance.random() < 0.2:
            data = data[: chance.randrange(1, len(data) + 1)]
        found.append(Hostile(f"frame sequence {len(found)}", handshake(ws), data))
    return found


def truncations(ws, count):
    """Everything that is right, cut somewhere."""
    whole = handshake(ws, Origin="http://x") + frame(1, PING) + frame(9, b"x" * 100) + frame(1, b"y" * 1000)
    cuts = [1 + at * (len(whole) - 1) // count for at in range(count)]
    return [Hostile(f"cut at {cut}", whole[:cut]) for cut in cuts]


def inputs(ws):
    return [*killers(ws), *mutated_heads(ws, 270), *bad_frames(ws, 410), *truncations(ws, 110)]


async def offer(port, hostile, reset):
    """Send one input, look what comes, and leave; whether anything came.

    Half of them say that they are done and take what comes until the close, the others reset the connection upon an answer.
    """
    got = False
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    try:
        if reset:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with trio.move_on_after(PATIENCE):
            await stream.send_all(hostile.first)
            if hostile.then:
                got = bool(await stream.receive_some(65536))
                await stream.send_all(hostile.then)
            if not reset:
                await stream.send_eof()
            while await stream.receive_some(65536):
                got = True
                if reset:
                    break
            got = True
    except trio.BrokenResourceError:
        got = True
    finally:
        await trio.aclose_forcefully(stream)
    return got


def test_there_are_enough_hostile_inputs_and_all_differ():
    everything = inputs("/ws?token=x")
    assert len(everything) >= 700
    kinds = Counter(hostile.name.split()[0] for hostile in everything)
    assert kinds["mutated"] >= 250
    assert kinds["frame"] >= 400
    assert kinds["cut"] >= 100
    assert len({(hostile.first, hostile.then) for hostile in everything}) > 0.9 * len(everything)
    assert inputs("/ws?token=x") == everything  # the same in each run


async def back_to(before, tasks, deadline):
    """Wait until nothing is left but the descriptors and tasks that there were."""
    with trio.fail_after(deadline):
        while descriptors() - before or trio.lowlevel.current_statistics().tasks_living > tasks:
            await trio.sleep(0.01)


async def offer_all(port, everything):
    """All inputs on one port, many at once; the share of them that was answered, or closed on."""
    limit, answered = trio.CapacityLimiter(AT_ONCE), 0

    async def one(hostile, reset):
        nonlocal answered
        async with limit:
            got = await offer(port, hostile, reset)
        answered += got

    async with trio.open_nursery() as nursery:
        for number, hostile in enumerate(everything):
            nursery.start_soon(one, hostile, number % 2)
    return answered / len(everything)


@pytest.mark.slow
async def test_hostile_inputs_end_nothing_and_disturb_nobody(daemon):
    async with api(daemon.url) as client:
        created = (await client.post("/api/chat", json={"message": "Build a restaurant menu"})).json()
        path = f"/api/sessions/{created['session_id']}"
        session = (await client.get(path, params={"wait": 20})).json()
    url = urlsplit(session["websocket_url"])
    everything = inputs(f"/ws?{url.query}")

    async with open_client(session["websocket_url"]) as bystander, trio.open_nursery() as nursery:
        await events_until(bystander, lambda event: event["event"] == "ready_for_input")
        before, tasks = descriptors(), trio.lowlevel.current_statistics().tasks_living + 1
        told = []

        async def listen():
            told.extend(await events_until(bystander, lambda event: event["event"] == "pong"))

        nursery.start_soon(listen)
        # The inputs are heard: most of them get an answer, or a close.
        assert await offer_all(url.port, everything) > 0.8
        await back_to(before, tasks, deadline=15)
        assert await offer_all(urlsplit(daemon.url).port, everything) > 0.8
        await bystander.send_message(PING.decode())
    # Who was connected all the time noticed nothing of it but that clients came and went.
    assert {event["event"] for event in told} == {"client_joined", "client_left", "pong"}

    # Both ports answer, and the session runs on.
    async with api(daemon.url) as client:
        assert (await client.get("/health")).status_code == 200
        now = (await client.get(path)).json()
        assert (now["status"], now["websocket_url"], now["error"]) == ("running", session["websocket_url"], None)
        assert (now["turn"], now["queued_prompts"]) == (1, 0)
        assert (await client.get("/api/sessions")).json()["total"] == 1
    async with api(f"http://127.0.0.1:{url.port}") as client:
        assert (await client.get("/health")).json() == {"status": "healthy"}
    async with open_client(session["websocket_url"]) as client:
        assert (await next_event(client))["event"] == "connected"


async def test_hostile_inputs_leave_nothing_on_the_apis_port(daemon):
    async with api(daemon.url) as client:
        await client.post("/api/chat", json={"session_id": "warm", "message": "hi"})
        with trio.fail_after(30):  # what the first turn opens for good must not count as left behind
            while not (await client.get("/api/sessions/warm")).json()["usage"]["output_tokens"]:
                await trio.sleep(0.01)
        await client.delete("/api/sessions/warm")
    before, tasks = descriptors(), trio.lowlevel.current_statistics().tasks_living
    await offer_all(urlsplit(daemon.url).port, killers("/ws?token=x"))
    await back_to(before, tasks, deadline=15)
