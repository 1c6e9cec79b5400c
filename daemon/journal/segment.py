"""One stretch of a journal on disk: `<first offset>.frames` beside `<first offset>.index`."""

from __future__ import annotations  # array[int] cannot be evaluated before Python 3.12

import os
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import suppress
from errno import EINVAL, EIO, ENOSYS
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, Self

from daemon.errors import JournalFull
from daemon.journal.recovery import RECORD, Recovered, record, recover

_SHORTER = "the journal's file became shorter while it was open"


class Stored(NamedTuple):
    """Ready frames where they lie in a file, which stays readable until `close`: pruned, rotated or closed meanwhile."""

    fd: int  # its own
    position: int
    length: int
    offset: int  # the last one among them

    def send(self, socket: int, sent: int, most: int) -> int:
        """Write what follows the first `sent` bytes to a non-blocking socket, `most` at once; how much it took."""
        position, size = self.position + sent, min(self.length - sent, most)
        try:
            took = os.sendfile(socket, self.fd, position, size)
        except OSError as error:
            if error.errno not in {EINVAL, ENOSYS}:
                raise
            data = os.pread(self.fd, size, position)  # not every file system can do it
            took = os.write(socket, data) if data else 0
        if not took:  # it would be so for ever
            raise OSError(EIO, _SHORTER)
        return took

    def close(self) -> None:
        """Let go of the file; once."""
        os.close(self.fd)


class Segment:
    """Frames of consecutive offsets. Opening recovers; a segment that is not the last of its journal is never written."""

    __slots__ = ("_ends", "_frames", "_index", "_repaired", "damaged", "first", "folder", "last", "size")

    def __init__(self, folder: Path, first: int, found: Recovered) -> None:
        self.folder = folder
        self.first = first
        self.last = first + len(found.ends) - 1  # the last offset it holds; one less than `first` while empty
        self.size = found.size  # bytes of frames
        self.damaged = found.damaged
        self._ends = found.ends
        self._repaired = found.repaired
        self._frames = self._index = -1

    @classmethod
    def open(cls, folder: Path, first: int) -> tuple[Self, Recovered]:
        """Prove what is on disk; changes nothing there. An absent segment is an empty one."""
        found = recover(_read(frames_path(folder, first)), _read(index_path(folder, first)), first)
        segment = cls(folder, first, found)
        with suppress(FileNotFoundError):
            segment._frames = os.open(frames_path(folder, first), os.O_RDONLY | os.O_CLOEXEC)
        return segment, found

    def make_writable(self) -> None:
        """Cut what could not be proven and bring the index in step; killed halfway, the next opening finds the same."""
        self.close()
        self._frames = os.open(frames_path(self.folder, self.first), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._index = os.open(index_path(self.folder, self.first), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if self._repaired:
            # The frames first: without its record, a frame that is wrong might count as sound.
            os.ftruncate(self._frames, self.size)
            data = _read(frames_path(self.folder, self.first))
            starts = [0, *self._ends[:-1]]
            records = [record(start, data[start:end]) for start, end in zip(starts, self._ends, strict=False)]
            # A damaged frame keeps its wrong checksum, or it would count as sound the next time.
            for offset in self.damaged:
                at = (offset - self.first) * RECORD.size
                records[offset - self.first] = os.pread(self._index, RECORD.size, at)
            _write(self._index, b"".join(records), 0)
            os.ftruncate(self._index, len(records) * RECORD.size)

    def append(self, ready: bytes) -> None:
        """Write one frame, then its record. On failure neither stays and `JournalFull` is raised."""
        start, place = self.size, len(self._ends) * RECORD.size
        try:
            _write(self._frames, ready, start)
            _write(self._index, record(start, ready), place)
        except OSError as error:
            raise self._undone(start, place, error) from error
        self.size = start + len(ready)
        self.last += 1
        self._ends.append(self.size)

    def append_all(self, ready: Sequence[bytes]) -> None:
        """The same with several frames at once: all of them or none."""
        start, place = self.size, len(self._ends) * RECORD.size
        end, ends, records = start, [], []
        for data in ready:
            records.append(record(end, data))
            end += len(data)
            ends.append(end)
        try:
            _write(self._frames, b"".join(ready), start)
            _write(self._index, b"".join(records), place)
        except OSError as error:
            raise self._undone(start, place, error) from error
        self.size = end
        self.last += len(ends)
        self._ends.extend(ends)

    def _undone(self, start: int, place: int, error: OSError) -> JournalFull:
        for fd, size in ((self._frames, start), (self._index, place)):
            with suppress(OSError):
                os.ftruncate(fd, size)
        return JournalFull(f"the journal could not be written: {error.strerror}")

    def read(self, after: int, max_bytes: int, max_events: int) -> tuple[bytes, int]:
        """Ready frames after an offset, joined: at least one, else up to the limits; and the last offset among them."""
        start, size, last = self._stretch(after, max_bytes, max_events)
        data = os.pread(self._frames, size, start)
        if len(data) != size:
            raise JournalFull(_SHORTER)
        return data, last

    def hold(self, after: int, max_bytes: int) -> Stored:
        """The same frames in the file, to be closed by the caller. OSError where no descriptor is free."""
        stretch = self._stretch(after, max_bytes, len(self._ends))
        return Stored(os.dup(self._frames), *stretch)

    def _stretch(self, after: int, max_bytes: int, max_events: int) -> tuple[int, int, int]:
        """Where the frames after an offset lie, up to the limits or the next damaged one: position, length, last offset."""
        lost = bisect_right(self.damaged, after)
        if lost < len(self.damaged):
            max_events = min(max_events, self.damaged[lost] - after - 1)
        low = after + 1 - self.first
        start = self._ends[low - 1] if low else 0
        high = max(low + 1, min(low + max_events, bisect_right(self._ends, start + max_bytes)))
        return start, self._ends[high - 1] - start, self.first + high - 1

    def sizes(self, after: int, last: int) -> array[int]:
        """The frame sizes of the offsets after one up to another."""
        low, high = after + 1 - self.first, last + 1 - self.first
        ends = [self._ends[low - 1] if low else 0, *self._ends[low:high]]
        return array("Q", (end - start for start, end in pairwise(ends)))

    def close(self) -> None:
        """Give back the descriptors; idempotent."""
        for name in ("_frames", "_index"):
            if (fd := getattr(self, name)) >= 0:
                setattr(self, name, -1)
                os.close(fd)

    def delete(self) -> None:
        """Close it and take it off the disk."""
        self.close()
        index_path(self.folder, self.first).unlink(missing_ok=True)
        frames_path(self.folder, self.first).unlink(missing_ok=True)


def frames_path(folder: Path, first: int) -> Path:
    """Where the frames from an offset on lie."""
    return folder / f"{first:012d}.frames"


def index_path(folder: Path, first: int) -> Path:
    """Where their index lies."""
    return folder / f"{first:012d}.index"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _write(fd: int, data: bytes, position: int) -> None:
    while (written := os.pwrite(fd, data, position)) < len(data):  # a full disk writes short before it says ENOSPC
        data, position = data[written:], position + written
