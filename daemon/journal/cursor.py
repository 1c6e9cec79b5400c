"""A reader's place in a journal: replay and live are the same call."""

import trio

from daemon.journal.journal import Frames, Gap, Journal


class EndOfJournal(Exception):
    """Everything was read and nothing will follow."""


class Cursor:
    """One client's place.

    Behind, it reads journaled events from the file; caught up, it follows the ring, live-only events included. Falling off
    the ring puts it back to the file: it then misses live-only events, never a journaled one.
    """

    def __init__(self, journal: Journal, offset: int) -> None:
        self.offset = offset
        self._journal = journal
        self._sequence: int | None = None  # its place on the ring, while it is caught up

    def read_nowait(self) -> Frames | Gap | None:
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
        chunk = self._journal.read(self.offset)
        if chunk is not None:
            self.offset = chunk.offset if isinstance(chunk, Frames) else chunk.last
            return chunk
        self._sequence = self._journal.sequence
        late = self._journal.late_frames()
        return Frames(b"".join(late), self.offset) if late else None

    async def read(self) -> Frames | Gap:
        """What follows, waiting for it; `EndOfJournal` after the last. Cancelled, it has read nothing."""
        await trio.lowlevel.checkpoint()
        while (chunk := self.read_nowait()) is None:
            if self._journal.ended:
                raise EndOfJournal
            await self._journal.wait_change()
        return chunk
