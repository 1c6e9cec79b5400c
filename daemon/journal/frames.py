"""One event as one unmasked WebSocket text frame (RFC 6455, 5.2); pure.

A server's frame is the same bytes for every client, so the journal keeps events in this form and nobody encodes twice.
permessage-deflate is never negotiated. A test pins the header to wsproto's bytes.
"""

import struct

import msgspec

PING = b"\x89\x00"  # without a payload
_TEXT_FIN = 0x81
_CLOSE_FIN = 0x88
_SHORT = struct.Struct("!BB")
_MEDIUM = struct.Struct("!BBH")
_LONG = struct.Struct("!BBQ")


def frame(payload: bytes) -> bytes:
    """The payload behind a header of 2, 4 or 10 bytes."""
    size = len(payload)
    if size < 126:
        return _SHORT.pack(_TEXT_FIN, size) + payload
    if size < 65536:
        return _MEDIUM.pack(_TEXT_FIN, 126, size) + payload
    return _LONG.pack(_TEXT_FIN, 127, size) + payload


def close_frame(code: int, reason: str) -> bytes:
    """A close with its code and a reason of less than 124 bytes."""
    payload = code.to_bytes(2, "big") + reason.encode()
    return _SHORT.pack(_CLOSE_FIN, len(payload)) + payload


def header_size(frame_size: int) -> int:
    """How many bytes of a frame of this whole size are header."""
    if frame_size < 126 + 2:
        return 2
    return 4 if frame_size < 65536 + 4 else 10


def payload_of(data: bytes | memoryview) -> bytes:
    """The JSON within one whole frame."""
    return bytes(data[header_size(len(data)) :])


def end_of_frame(data: memoryview, start: int) -> int | None:
    """Where the frame at `start` ends, or None where no whole text frame of ours stands there."""
    room = len(data) - start
    if room < 2 or data[start] != _TEXT_FIN:
        return None
    size, header = data[start + 1], 2
    if size == 126:
        if room < 4:
            return None
        size, header = _MEDIUM.unpack_from(data, start)[2], 4
    elif size == 127:
        if room < 10:
            return None
        size, header = _LONG.unpack_from(data, start)[2], 10
    end = start + header + size
    # A longer header than the size needs is not ours: header_size() could not find the payload again.
    if size > room or end > len(data) or header_size(header + size) != header:
        return None
    return int(end)


class _Offset(msgspec.Struct):
    offset: int


_offsets = msgspec.json.Decoder(_Offset)


def holds_offset(data: memoryview, offset: int) -> bool:
    """Whether one whole frame is a journaled event with this offset."""
    try:
        text = payload_of(data).decode()  # msgspec takes what it skips on trust; a client would not
        return _offsets.decode(text).offset == offset
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
