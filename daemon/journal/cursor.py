"""A reader's place in a journal: replay and live are the same call."""

from contextlib import suppress
from typing import NamedTuple

from daemon.journal.journal import Frames, Gap, Journal
from daemon.journal.segment import Stored


class Place(NamedTuple):
    """Where somebody who is caught up stands."""

    sequence: int  # of the next frame on the ring
    offset: int  # of the last journaled event before it


class Cursor:
    """One client's place.

    Behind, it reads journaled events from the file; caught up, it follows the ring, live-only events included. Falling off
    the ring puts it back to the file: it then misses live-only events, never a journaled one.

    For who can send from a file, what lies there is not read but given as `Stored`, which its receiver closes.
    """

    __slots__ = ("_from_file", "_journal", "_sequence", "offset")  # each client has one

    def __init__(self, journal: Journal, offset: int, *, from_file: bool = False) -> None:
        self.offset = offset
        self._journal = journal
        self._from_file = from_file
        self._sequence: int | None = None  # its place on the ring, while it reads there

    def read_nowait(self) -> Frames | Stored | Gap | None:
        """What follows, or None for now."""
        ring = self._journal.ring
        if self._sequence is not None:
            entries = ring.after(self._sequence)
            if entries:
                self._sequence, self.offset = ring.sequence, entries[-1][1]
                ring.forget()
                return Frames(b"".join([ready for ready, _ in entries]), self.offset)
            if entries is not None:
                return None
            self.rest()
        chunk = self._behind()
        if chunk is not None:
            self.offset = chunk.last if isinstance(chunk, Gap) else chunk.offset
            return chunk
        self.resume(Place(ring.sequence, self.offset))
        late = self._journal.late_frames()
        return Frames(b"".join(late), self.offset) if late else None

    def resume(self, place: Place) -> None:
        """Go on from a place to which others have brought its client."""
        self._sequence, self.offset = place
        self._journal.ring.join()

    def rest(self) -> None:
        """Read no more for now: nothing need be kept for it. Idempotent."""
        if self._sequence is not None:
            self._sequence = None
            self._journal.ring.leave()

    def _behind(self) -> Frames | Stored | Gap | None:
        if self._from_file:
            with suppress(OSError):  # no descriptor is free
                return self._journal.hold(self.offset)
        return self._journal.read(self.offset)
