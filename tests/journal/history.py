"""Journals of plain notes, what they hold, and what a client is told of them, as lists."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from daemon.journal import frames
from daemon.journal.cursor import Cursor
from daemon.journal.journal import Frames, Gap, Journal, Recovery, load_journal

LIMIT = 64 << 20
SMALL = 8192  # a segment is a quarter of it: 15 notes of 130 bytes


def note(journal: Journal, text: str) -> int:
    return journal.append("files_changed", paths=[text])  # the shortest event there is


def texts(found: list[dict[str, Any] | Gap]) -> list[str | Gap]:
    return [event if isinstance(event, Gap) else event["data"]["paths"][0] for event in found]


def held(journal: Journal, after: int = 0, **limits: int) -> list[dict[str, Any] | Gap]:
    """All that follows an offset, in order; a gap stands where events are missing."""
    found: list[dict[str, Any] | Gap] = []
    while (chunk := journal.read(after, **limits)) is not None:
        found += unpacked(journal, after, chunk)
        after = chunk.last if isinstance(chunk, Gap) else chunk.offset
    return found


def unpacked(journal: Journal, after: int, chunk: Frames | Gap) -> list[dict[str, Any] | Gap]:
    if isinstance(chunk, Gap):
        return [chunk]
    return [msgspec.json.decode(payload) for payload in journal.payloads(after, chunk)]


def offsets(found: list[dict[str, Any] | Gap]) -> list[int]:
    """Every offset that was told of, whether as an event or as missing."""
    told: list[int] = []
    for event in found:
        told += range(event.first, event.last + 1) if isinstance(event, Gap) else [event["offset"]]
    return told


def file_of(folder, first, suffix):
    (home,) = folder.iterdir()
    return home / f"{first:012d}.{suffix}"


@contextmanager
def opened(folder: Path, *, limit: int = LIMIT, writable: bool = True) -> Iterator[tuple[Journal, Recovery]]:
    journal, recovery = load_journal("s", folder, limit=limit, writable=writable)
    try:
        yield journal, recovery
    finally:
        journal.close()


def files(folder: Path) -> dict[str, bytes]:
    """Everything below a folder, to compare before and after."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextmanager
def lowered(which: int, value: int) -> Iterator[None]:
    """This process within a smaller limit; Python ignores SIGXFSZ, so a file that is too large is an OSError."""
    soft, hard = resource.getrlimit(which)
    resource.setrlimit(which, (value, hard))
    try:
        yield
    finally:
        resource.setrlimit(which, (soft, hard))


def lowest_free_descriptor() -> int:
    fd = os.open("/dev/null", os.O_RDONLY)
    os.close(fd)
    return fd


def told_in(chunk: Frames | Gap | None) -> list[int | str | Gap]:
    """What a client makes of a chunk: offsets, the texts of live events, gaps."""
    if chunk is None:
        return []
    if isinstance(chunk, Gap):
        return [chunk]
    told: list[int | str | Gap] = []
    start, view = 0, memoryview(chunk.data)
    while start < len(view):
        end = frames.end_of_frame(view, start)
        assert end is not None, "a chunk holds whole frames"
        event = msgspec.json.decode(frames.payload_of(view[start:end]))
        told.append(event["offset"] if "offset" in event else event["data"]["text"])
        start = end
    return told


def drained(cursor: Cursor) -> list[int | str | Gap]:
    told = []
    while (chunk := cursor.read_nowait()) is not None:
        told += told_in(chunk)
    return told


def say(written: Journal, text: str) -> None:
    written.publish("tool_output", tool_use_id="t", position=0, text=text)
