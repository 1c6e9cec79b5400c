"""Chunks that come together are one; nothing of a body is lost, held for ever or made up."""

import itertools

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.agent.chunks import Chunks


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def parted(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


def heard(parts: list[bytes]) -> tuple[bytes, str]:
    """What h11 makes of a body that comes in these parts, then ends."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    client.next_event()
    body = b""
    for part in [*parts, b""]:
        client.receive_data(part)
        try:
            while (event := client.next_event()) is not h11.NEED_DATA:
                if not isinstance(event, h11.Data):
                    return body, type(event).__name__
                body += event.data
        except h11.RemoteProtocolError as error:
            return body, str(error)
    return body, "nothing"


def joined(begun: bytes, parts: list[bytes]) -> list[bytes]:
    chunks = Chunks(begun)
    passed = [begun, *(chunks.join(part) for part in parts), chunks.join(b"")]
    return [part for part in passed if part]


@pytest.mark.parametrize(
    ("begun", "data", "passed"),
    [
        (b"", chunk(b"a") + chunk(b"b"), chunk(b"ab")),
        (b"", chunk(b"a"), chunk(b"a")),
        (chunk(b"a"), chunk(b"b") + chunk(b"c") + b"0\r\n\r\n", chunk(b"bc") + b"0\r\n\r\n"),
        (b"5\r\nab", b"cde\r\n" + chunk(b"f") + chunk(b"g"), b"cde\r\n" + chunk(b"fg")),
        (b"5\r\nab", b"c", b"c"),
        (b"5", b"\r\nabcde\r\n" + chunk(b"f") + chunk(b"g"), b"\r\nabcde\r\n" + chunk(b"f") + chunk(b"g")),
        (b"", chunk(b"a") + b"5\r\nbc", chunk(b"a")),
        (b"", b"5\r\nbc", b""),
        (b"", b"0\r\nTrailer: x\r\n\r\n", b"0\r\nTrailer: x\r\n\r\n"),
        (b"", chunk(b"a") + b"1;extension\r\nb\r\n", chunk(b"a") + b"1;extension\r\nb\r\n"),
        (b"", chunk(b"a") + b"1\r\nbXX", chunk(b"a") + b"1\r\nbXX"),
        (b"", b"garbage", b"garbage"),
        (b"", b"10000\r\n" + b"x" * 65536, b"10000\r\n" + b"x" * 65536),
    ],
)
def test_what_is_passed_on(begun, data, passed):
    assert Chunks(begun).join(data) == passed


def test_chunk_that_is_too_long_to_be_held_is_followed_by_joined_ones():
    chunks, long = Chunks(b""), chunk(b"x" * 100_000)
    assert chunks.join(long[:70_000]) == long[:70_000]
    assert chunks.join(long[70_000:] + chunk(b"a") + chunk(b"b")) == long[70_000:] + chunk(b"ab")


bodies = st.lists(st.binary(min_size=1, max_size=300), max_size=12)
cuts = st.lists(st.integers(0, 5000), max_size=12)
ends = st.sampled_from(
    [b"0\r\n\r\n", b"0\r\nA: b\r\n\r\n", b"", b"zz\r\n", b"3\r\nab", b"3;x=y\r\nabc\r\n0\r\n\r\n", b"3\r\nabcd"]
)


@given(pieces=bodies, end=ends, places=cuts)
def test_h11_hears_the_same_however_the_bytes_come(pieces, end, places):
    parts = parted(b"".join(map(chunk, pieces)) + end, places)
    for first in range(min(3, len(parts) + 1)):  # that many parts have been passed on with the head
        begun, rest = b"".join(parts[:first]), parts[first:]
        assert heard(joined(begun, rest)) == heard([part for part in (begun, *rest) if part])


@given(pieces=st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=12))
def test_all_that_comes_together_is_one_chunk(pieces):
    assert Chunks(b"").join(b"".join(map(chunk, pieces))) == chunk(b"".join(pieces))
