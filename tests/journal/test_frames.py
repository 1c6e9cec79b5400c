"""Frames: the bytes that wsproto would send, found again from either end."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import TextMessage

from daemon.journal.frames import end_of_frame, frame, header_size, holds_offset, payload_of

SIZES = (0, 1, 2, 124, 125, 126, 127, 128, 129, 130, 131, 255, 256, 65534, 65535, 65536, 65537, 65539, 65540, 200_000)


@pytest.mark.parametrize("size", SIZES)
def test_frame_is_what_wsproto_sends(size):
    payload = b"x" * size
    assert frame(payload) == Connection(ConnectionType.SERVER).send(TextMessage(data=payload.decode()))


def test_frame_is_what_wsproto_reads():
    payloads = ["ä" * (size // 2) for size in SIZES]
    client = Connection(ConnectionType.CLIENT)
    client.receive_data(b"".join(frame(payload.encode()) for payload in payloads))
    found = [""]
    for event in client.events():
        assert isinstance(event, TextMessage)
        found[-1] += event.data
        if event.message_finished:
            found.append("")
    assert found == [*payloads, ""]


@pytest.mark.parametrize("size", SIZES)
def test_payload_is_found_again_from_the_size_alone(size):
    payload = os.urandom(size)
    whole = frame(payload)
    assert header_size(len(whole)) == len(whole) - size
    assert payload_of(whole) == payload
    assert payload_of(memoryview(whole)) == payload


@pytest.mark.parametrize("size", SIZES)
def test_end_is_found_where_a_frame_stands(size):
    whole = frame(b"x" * size)
    assert end_of_frame(memoryview(b"head" + whole + b"tail"), 4) == 4 + len(whole)
    assert end_of_frame(memoryview(whole), 0) == len(whole)


@pytest.mark.parametrize("size", [size for size in SIZES if size < 300])
def test_no_end_is_found_when_any_of_the_frame_is_missing(size):
    whole = frame(b"x" * size)
    assert all(end_of_frame(memoryview(whole[:length]), 0) is None for length in range(len(whole)))


@pytest.mark.parametrize("size", [65536, 200_000])
def test_no_end_is_found_when_a_long_frame_is_cut(size):
    whole = frame(b"x" * size)
    for length in (0, 1, 2, 3, 4, 9, 10, 11, len(whole) - 1):
        assert end_of_frame(memoryview(whole[:length]), 0) is None


@pytest.mark.parametrize(
    "header",
    [
        b"\x01\x01",  # not the last fragment
        b"\x82\x01",  # binary
        b"\x88\x01",  # close
        b"\xc1\x01",  # compressed
        b"\x81\x81",  # masked
        b"\x81\x7e\x00\x01",  # 16 bits for what 7 can say
        b"\x81\x7f\x00\x00\x00\x00\x00\x00\x00\x01",  # 64 bits for what 7 can say
        b"\x81\x7f\x00\x00\x00\x00\x00\x00\x01\x00",  # 64 bits for what 16 can say
        b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff",  # more than there is
    ],
)
def test_no_end_is_found_when_the_header_is_not_ours(header):
    assert end_of_frame(memoryview(header + b"x" * 300), 0) is None


@given(st.binary(max_size=400), st.integers(0, 10))
def test_end_lies_within_the_data_whatever_they_are(data, start):
    end = end_of_frame(memoryview(data), start)
    assert end is None or (start + 2 <= end <= len(data) and frame(payload_of(data[start:end])) == data[start:end])


@pytest.mark.parametrize(
    ("payload", "found"),
    [
        (b'{"data":{"offset":2,"x":[{}]},"offset":3}', True),
        (b'{"offset":4}', False),
        (b'{"data":{"offset":3}}', False),
        (b'{"offset":"3"}', False),
        (b'{"offset":3', False),
        (b'{"offset":3}{', False),
        (b'{"text":"\xff","offset":3}', False),
        (b'{"text":"\x01","offset":3}', False),
        (b"3", False),
        (b"", False),
    ],
)
def test_offset_is_held_only_by_a_sound_event_that_says_so(payload, found):
    assert holds_offset(memoryview(frame(payload)), 3) is found
