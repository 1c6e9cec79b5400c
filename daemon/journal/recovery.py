"""What of a segment can be proven after a crash or a bad disk; pure.

Each index record holds a frame's position, length and CRC-32, and a CRC-32 of its own. So a flipped bit tells where it is:

- index record sound, frame sound: kept.
- index record sound, frame wrong: that one event is lost. In the middle it becomes a named gap, at the end it is cut.
- index record wrong or missing: the frame itself is asked (a whole frame, valid JSON, the expected offset); if it answers,
  its record is written anew; if not, the segment ends here.

Nothing unproven is ever handed out.
"""

from __future__ import annotations  # array[int] cannot be evaluated before Python 3.12

import struct
from array import array
from dataclasses import dataclass, field
from zlib import crc32

from daemon.journal import frames

RECORD = struct.Struct("<QIII")  # position, length, CRC-32 of the frame, CRC-32 of the three before it
_HEAD = struct.Struct("<QII")
_CHECKED = _HEAD.size


def record(position: int, data: bytes | memoryview) -> bytes:
    """The index record of a frame that begins at a position."""
    head = _HEAD.pack(position, len(data), crc32(data))
    return head + crc32(head).to_bytes(4, "little")


@dataclass
class Recovered:
    """The provable part of one segment."""

    ends: array[int] = field(default_factory=lambda: array("Q"))  # where the frame of offset first+i ends
    damaged: list[int] = field(default_factory=list)  # offsets within it that are lost
    repaired: bool = False  # the index was rebuilt in places, so it must be written anew
    cut: str | None = None  # why anything behind the end was given up
    cut_seen: bool = False  # whether a client may have been sent what was given up

    @property
    def size(self) -> int:
        """How many bytes of the frames file are kept."""
        return self.ends[-1] if self.ends else 0


def recover(data: bytes, index: bytes, first: int) -> Recovered:
    """The longest part of a segment that can be proven, read from the front."""
    view, found = memoryview(data), Recovered()
    position, offset = 0, first
    while True:
        stored = index[(offset - first) * RECORD.size : (offset - first + 1) * RECORD.size]
        sound = len(stored) == RECORD.size and crc32(stored[:_CHECKED]) == RECORD.unpack(stored)[3]
        start, length, checksum, _ = RECORD.unpack(stored) if sound else (0, 0, 0, 0)
        if sound and start == position:
            end = position + length
            if end > len(data):
                break
            if crc32(view[position:end]) != checksum:
                found.damaged.append(offset)
        else:
            whole = frames.end_of_frame(view, position)
            if whole is None or not frames.holds_offset(view[position:whole], offset):
                break
            end, found.repaired = whole, True
        found.ends.append(end)
        position, offset = end, offset + 1
    seen = len(index) > len(found.ends) * RECORD.size  # an index record is written before anyone sees its event
    while found.damaged and found.damaged[-1] == first + len(found.ends) - 1:
        found.damaged.pop()
        found.ends.pop()
        seen = True
    if seen or found.size != len(data):
        found.cut = f"{len(data) - found.size} bytes after offset {first + len(found.ends) - 1} could not be proven"
        found.cut_seen = seen
        found.repaired = True
    return found
