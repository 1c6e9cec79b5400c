"""The journal of one session: an append-only sequence of events, numbered from 1 without gaps.

    journal.append("turn_start", turn=1, …)    written, then visible to every cursor; never blocks the caller
    journal.publish("claude_text_delta", …)    live only: not written, not numbered

Both put one ready frame on a ring in memory while anybody reads it there (`ring.py`), as clients that keep up do (`cursor.py`);
whoever is late is served from the file. The ring is bounded, so a slow client costs nobody anything.
"""

import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from daemon.awaited import Again
from daemon.errors import Bug, JournalFull
from daemon.journal import events, frames
from daemon.journal.recovery import Recovered
from daemon.journal.ring import Ring
from daemon.journal.segment import Segment, Stored

CHUNK_BYTES = 256 * 1024  # what a longer read would delay other sessions by stands in bench/results.md
_EVERYTHING = 1 << 62


class Frames(NamedTuple):
    """Ready frames, joined; `offset` is the last journaled one among them or before them."""

    data: bytes
    offset: int


class Gap(NamedTuple):
    """Events that are no longer held: pruned by the size limit, or lost to a bad disk."""

    first: int
    last: int


@dataclass(frozen=True)
class Recovery:
    """What opening found: a line for the log."""

    events: int
    cut: str | None
    damaged: int


class Journal:
    """Made by `open_journal`."""

    __slots__ = (
        "_changed",
        "_held",
        "_held_from",
        "_holding",
        "_limit",
        "_room",
        "_segments",
        "closed",
        "delivered",
        "ended",
        "folder",
        "late_frames",
        "offset",
        "on_show",
        "ring",
        "session_id",
    )

    def __init__(self, session_id: str, folder: Path, segments: list[Segment], limit: int) -> None:
        self.session_id = session_id
        self.folder = folder
        self.offset = segments[-1].last  # the last journaled one; 0 while empty
        self.delivered = 0  # the highest offset that any client has been sent
        self.ended = False
        self.closed = False
        self.late_frames: Callable[[], list[bytes]] = (
            list  # what a client that joins now must be told besides the events
        )
        self.on_show: Callable[[], object] = bool  # called after each append and publish, and at the end
        self.ring = Ring()
        self._segments = segments
        self._limit = limit
        self._room = 0  # bytes that can be written before `_make_room` is asked again
        self._changed = Again()
        self._holding = False
        self._held: list[bytes] = []  # frames that are not written yet
        self._held_from = 0  # where on the ring begins what nobody was told of

    @property
    def epoch(self) -> str:
        """Names the sequence that offsets belong to."""
        return self.folder.name

    @property
    def first(self) -> int:
        """The first offset still held."""
        return self._segments[0].first

    def append(self, kind: str, /, **data: Any) -> int:
        """Write an event and show it; its offset. `JournalFull` where it cannot be written: then nobody saw it."""
        if self.ended:
            raise Bug(f"{kind} after the journal ended")
        offset = self.offset + 1
        ready = frames.frame(events.encode(self.session_id, kind, data, offset))
        if len(ready) > self._room:
            self.commit()
            self._make_room(len(ready))
        if self._holding:
            self._held.append(ready)
        else:
            self._segments[-1].append(ready)
        self._room -= len(ready)
        self.offset = offset
        self._show(ready)
        return offset

    def publish(self, kind: str, /, **data: Any) -> None:
        """Show a live-only event to the clients that keep up."""
        self._show(frames.frame(events.encode(self.session_id, kind, data, None)))

    def together(self) -> AbstractContextManager[None]:
        """What is appended and shown in the block, which awaits and reads nothing, is written at once at its end, and leaves in one write.

        `JournalFull`, also at the end, where it cannot be written: nobody saw what is not in the journal then.
        """
        return _Together(self)

    def hold_back(self) -> None:
        """Write nothing and tell nobody from now on."""
        self._holding = True
        self._held_from = self.ring.sequence

    def let_go(self) -> None:
        """Write what was held back, and tell of it and of what follows."""
        self._holding = False
        self.commit()
        self._tell()

    def commit(self) -> None:
        """Write what is held back, as somebody is about to see it."""
        if self._held:
            held, self._held = self._held, []
            try:
                self._segments[-1].append_all(held)
            except JournalFull:
                self.offset -= len(held)
                self.ring.take_back(self._held_from)
                raise
        self._held_from = self.ring.sequence

    def live_frame(self, kind: str, /, **data: Any) -> bytes:
        """A live-only event as a ready frame, for one client alone."""
        return frames.frame(events.encode(self.session_id, kind, data, None))

    def end(self) -> None:
        """No event will follow: who has read everything is at its end."""
        self.ended = True
        self._tell()

    def read(self, after: int, *, max_bytes: int = CHUNK_BYTES, max_events: int = _EVERYTHING) -> Frames | Gap | None:
        """What is held directly after an offset, or None at the end, and from a closed journal."""
        found = self._next(after)
        return Frames(*found.read(after, max_bytes, max_events)) if isinstance(found, Segment) else found

    def hold(self, after: int) -> Stored | Gap | None:
        """The same as a part of the file, to be closed by the caller. OSError where no descriptor is free."""
        found = self._next(after)
        return found.hold(after, CHUNK_BYTES) if isinstance(found, Segment) else found

    def _next(self, after: int) -> Segment | Gap | None:
        """The segment that holds what follows an offset."""
        if after >= self.offset or self.closed:
            return None
        segment = self._segment_of(after + 1)
        if segment.first > after + 1:
            return Gap(after + 1, segment.first - 1)
        return Gap(after + 1, after + 1) if after + 1 in segment.damaged else segment

    def payloads(self, after: int, chunk: Frames) -> Iterator[bytes]:
        """The events of a chunk that was read after an offset, each as JSON."""
        start, view = 0, memoryview(chunk.data)
        for size in self._segment_of(after + 1).sizes(after, chunk.offset):
            yield frames.payload_of(view[start : start + size])
            start += size

    async def wait_change(self) -> None:
        """Wait for the next append, publish or end. A hint: look again after it."""
        await self._changed.wait()

    def close(self) -> None:
        """Give back the descriptors. What was appended stays readable by the next `open_journal`."""
        self.closed = True
        for segment in self._segments:
            segment.close()

    def _segment_of(self, offset: int) -> Segment:
        """The segment that holds an offset, or else the next one that holds any."""
        return next(segment for segment in self._segments if segment.last >= offset)

    def _show(self, ready: bytes) -> None:
        self.ring.put(ready, self.offset)
        if not self._holding:
            self._tell()

    def _tell(self) -> None:
        self._changed.tell()
        self.on_show()

    def _make_room(self, size: int) -> None:
        """Begin a new segment where this one is a quarter of the limit, and drop the oldest ones beyond the limit."""
        quarter = self._limit // 4
        if self._segments[-1].size and self._segments[-1].size + size > quarter:
            segment = Segment(self.folder, self.offset + 1, Recovered())
            try:
                segment.make_writable()
            except OSError as error:
                segment.delete()  # left behind, it would say that the journal ends where it begins
                raise JournalFull(f"the journal could not be written: {error.strerror}") from error
            self._segments.append(segment)
        while (held := sum(segment.size for segment in self._segments)) + size > self._limit and len(
            self._segments
        ) > 1:
            self._segments.pop(0).delete()
        self._room = min(quarter - self._segments[-1].size, self._limit - held)


class _Together(AbstractContextManager[None]):
    """By hand: a generator would cost as much as an event does."""

    __slots__ = ("_journal",)

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def __enter__(self) -> None:
        self._journal.hold_back()

    def __exit__(self, *_: object) -> None:
        self._journal.let_go()


def load_journal(session_id: str, folder: Path, *, limit: int, writable: bool) -> tuple[Journal, Recovery]:
    """Open a journal and prove all of it; blocks for about 1 ms per MB, so call it in a thread where it may be long.

    The folder holds one folder, named by the epoch. Where the end of the journal was lost and a client may have seen it, the
    epoch changes (only if `writable`): within one epoch an offset never names two events. Not `writable` and nothing there:
    `FileNotFoundError`.
    """
    home = next((entry for entry in sorted(folder.iterdir()) if entry.is_dir()), None) if folder.exists() else None
    if home is None:
        if not writable:
            raise FileNotFoundError(folder)
        home = folder / _new_epoch()
        home.mkdir(parents=True)
    segments: list[Segment] = []
    try:
        # An index without its frames counts: it says that events were there.
        for first in sorted({int(path.stem) for path in home.iterdir() if path.suffix in {".frames", ".index"}}) or [1]:
            segment, found = Segment.open(home, first)
            segments.append(segment)
        events_held = sum(1 + segment.last - segment.first - len(segment.damaged) for segment in segments)
        lost = 1 + segments[-1].last - segments[0].first - events_held
        if writable:
            if found.cut_seen:  # before the cut: killed between the two, the next opening must still see a reason
                home = home.rename(folder / _new_epoch())
                for segment in segments:
                    segment.folder = home
            segments[-1].make_writable()
    except BaseException:
        for segment in segments:
            segment.close()
        raise
    return Journal(session_id, home, segments, limit), Recovery(events_held, found.cut, lost)


def _new_epoch() -> str:
    return secrets.token_hex(6)


@contextmanager
def open_journal(session_id: str, folder: Path, *, limit: int) -> Iterator[tuple[Journal, Recovery]]:
    """A journal for one run of its session. Leaving ends it and gives back the descriptors, whatever happened."""
    journal, recovery = load_journal(session_id, folder, limit=limit, writable=True)
    try:
        yield journal, recovery
    finally:
        journal.end()
        journal.close()
