"""Whatever a session shows, to all clients that keep up, without a task for each of them.

A server's frame is the same bytes for everybody. What is shown by itself is written there and then, inside `append`; what
follows within a few milliseconds waits for one flush and leaves in one write. A client whose socket does not take all of it
falls out: its own task takes over until it has caught up. So nothing is awaited per message and client, and a slow client
delays nobody.
"""

from collections.abc import Awaitable, Callable
from math import inf

import trio

from daemon.journal.cursor import Place
from daemon.journal.journal import Journal

_GATHER = (
    0.004  # s: what a burst is delayed by at most; less than anybody sees, and a hundred events leave in one write
)

Write = Callable[[bytes], int]  # how many bytes were taken without waiting


class _Keeping:
    """One client that keeps up."""

    __slots__ = ("fell", "place", "write")

    def __init__(self, write: Write) -> None:
        self.write = write
        self.fell = trio.Event()
        self.place: Place | None = None


class Fanout:
    """The clients of one session that keep up; all of them are at one place of its journal."""

    def __init__(self, journal: Journal) -> None:
        self.start_soon: Callable[[Callable[[], Awaitable[None]]], object] | None = (
            None  # without it nothing is gathered
        )
        self._journal = journal
        self._place = Place(journal.sequence, journal.offset)
        self._keeping: dict[_Keeping, None] = {}
        self._flushed_at = -inf
        self._arranged = False  # a flush will come
        journal.on_show = self._shown

    async def keep_up(self, write: Write) -> Place:
        """Have all that is shown from now on written, until that does not work or nothing will follow; how far it went.

        For who has read everything up to now. Cancelled, no more is written.
        """
        self.flush()  # the others must be where this one is
        keeping = _Keeping(write)
        self._keeping[keeping] = None
        try:
            if not self._journal.ended:
                await keeping.fell.wait()
        finally:
            self._keeping.pop(keeping, None)
        return keeping.place or self._place

    def flush(self) -> None:
        """Write what has not been written yet."""
        journal, before = self._journal, self._place
        self._place = after = Place(journal.sequence, journal.offset)
        if not self._keeping or before == after:
            return
        self._flushed_at = trio.current_time()
        shown = journal.ring_after(before.sequence)
        if shown is None:  # more than the ring holds: everybody reads the file
            for keeping in list(self._keeping):
                self._fall(keeping, before)
            return
        data = shown[0][0] if len(shown) == 1 else b"".join([frame for frame, _ in shown])
        size, taken = len(data), 0
        for keeping in list(self._keeping):
            written = keeping.write(data)
            taken += written
            if written < size:
                self._fall(keeping, after if written else before)
        if taken:
            journal.delivered = after.offset

    def _shown(self) -> None:
        if self._journal.ended:
            self.flush()
            for keeping in list(self._keeping):
                self._fall(keeping, self._place)
        elif self._keeping and not self._arranged:
            if self.start_soon is None or trio.current_time() >= self._flushed_at + _GATHER:
                self.flush()
            else:
                self._arranged = True
                self.start_soon(self._flush_later)

    async def _flush_later(self) -> None:
        try:
            await trio.sleep_until(self._flushed_at + _GATHER)
        finally:
            self._arranged = False
            self.flush()

    def _fall(self, keeping: _Keeping, place: Place) -> None:
        del self._keeping[keeping]
        keeping.place = place
        keeping.fell.set()
