"""Server-sent events out of bytes."""

from itertools import pairwise

import httpx2
import msgspec
import pytest
from anthropic import AsyncStream
from hypothesis import given
from hypothesis import strategies as st

from daemon.agent.sse import LONGEST, Events

STREAM = (
    b': a comment\nevent: message_start\ndata: {"type": "message_start", "text": "\xc3\xa9\xe2\x82\xac"}\n\n'
    b'event: ping\r\ndata: {"type": "ping"}\r\n\r\n'
    b'event: x\ndata:{"type": "x",\ndata: "a": "b: c"}\n\n\nid: 7\nretry: 3\n\nevent: no_data\n\n'
    b'event: message_stop\ndata: {"type": "message_stop"}\n\n'
)


async def by_the_sdk(data: bytes) -> list[object]:
    response = httpx2.Response(200, content=data)
    return [msgspec.json.decode(event.data) async for event in AsyncStream.raw_events(response) if event.data]


async def test_events_are_those_that_the_sdk_sees():
    events = Events().feed(STREAM)
    assert events == await by_the_sdk(STREAM)
    assert [event["type"] for event in events] == ["message_start", "ping", "x", "message_stop"]


@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_events_are_the_same_however_the_bytes_are_cut(cuts):
    stream, found = Events(), []
    for start, end in pairwise([0, *sorted(cuts), len(STREAM)]):
        found += stream.feed(STREAM[start:end])
    assert found == Events().feed(STREAM)


def test_event_whose_end_is_missing_is_none():
    assert Events().feed(b'data: {"type": "a"}\n') == []


def test_half_a_surrogate_pair_is_let_through():
    assert Events().feed(b'data: {"text": "a\\ud83d"}\n\n') == [{"text": "a\ud83d"}]


@pytest.mark.parametrize("data", [b"{", b"[1]", b"3", b"[DONE]", b"null"])
def test_event_that_is_no_object_is_malformed(data):
    with pytest.raises((ValueError, TypeError)):
        Events().feed(b"data: " + data + b"\n\n")


def test_event_without_end_is_not_kept_for_ever():
    stream = Events()
    for _ in range(LONGEST // (1 << 20)):
        stream.feed(b"x" * (1 << 20))
    with pytest.raises(ValueError, match="without end"):
        stream.feed(b"x")
