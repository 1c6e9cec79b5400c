"""A reader's place in a journal: replay and live are the same call."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NamedTuple

import trio

from daemon.journal.journal import Frames, Gap, Journal
from daemon.journal.segment import Stored


class EndOfJournal(Exception):
    """Everything was read and nothing will follow."""


class Place(NamedTuple):
    """Where somebody who is caught up stands."""

    sequence: int  # of the next frame on the ring
    offset: int  # of the last journaled event before it


KeepUp = Callable[[], Awaitable[Place]]


class Cursor:
    """One client's place.

    Behind, it reads journaled events from the file; caught up, it follows the ring, live-only events included. Falling off
    the ring puts it back to the file: it then misses live-only events, never a journaled one.

    For who can send from a file, what lies there is not read but given as `Stored`, which its receiver closes. With `keep_up`
    it is not the cursor that waits at the end: others bring its client what follows, and say how far they came.
    """

    def __init__(
        self, journal: Journal, offset: int, *, from_file: bool = False, keep_up: KeepUp | None = None
    ) -> None:
        self.offset = offset
        self._journal = journal
        self._from_file = from_file
        self._keep_up = keep_up
        self._sequence: int | None = None  # its place on the ring, while it is caught up

    def read_nowait(self) -> Frames | Stored | Gap | None:
        """What follows, or None for now."""
        if self._sequence is not None:
            entries = self._journal.ring_after(self._sequence)
            if entries:
                self._sequence += len(entries)
                self.offset = entries[-1][1]
                return Frames(b"".join([ready for ready, _ in entries]), self.offset)
            if entries is not None:
                return None
            self._sequence = None
        chunk = self._behind()
        if chunk is not None:
            self.offset = chunk.last if isinstance(chunk, Gap) else chunk.offset
            return chunk
        self._sequence = self._journal.sequence
        late = self._journal.late_frames()
        return Frames(b"".join(late), self.offset) if late else None

    def _behind(self) -> Frames | Stored | Gap | None:
        if self._from_file:
            with suppress(OSError):  # no descriptor is free
                return self._journal.hold(self.offset)
        return self._journal.read(self.offset)

    async def read(self) -> Frames | Stored | Gap:
        """What follows, waiting for it; `EndOfJournal` after the last. Cancelled, it has read nothing and holds no file."""
        await trio.lowlevel.checkpoint()
        while (chunk := self.read_nowait()) is None:
            if self._journal.ended:
                raise EndOfJournal
            if self._keep_up is None:
                await self._journal.wait_change()
            else:
                self._sequence, self.offset = await self._keep_up()
        return chunk
