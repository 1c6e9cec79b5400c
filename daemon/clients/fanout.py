"""Whatever a session shows, to all clients that keep up, without a task for each of them.

A server's frame is the same bytes for everybody. What is shown by itself is written there and then, inside `append`; what
follows within a few milliseconds waits for one flush and leaves in one write. A client whose socket does not take all of it
falls out: its own task takes over until it has caught up. So nothing is awaited per message and client, and a slow client
delays nobody.
"""

from collections.abc import Awaitable, Callable
from math import inf
from typing import Protocol

import trio

from daemon.journal.cursor import Place
from daemon.journal.journal import Journal

_GATHER = (
    0.004  # s: what a burst is delayed by at most; less than anybody sees, and a hundred events leave in one write
)


class Follower(Protocol):
    """One client that keeps up, compared by identity."""

    def write(self, data: bytes) -> int:
        """Write whole frames; how many bytes were taken without waiting."""

    def fall(self, place: Place) -> None:
        """From that place on nothing is written to it any more: what follows is its own to read."""


class Fanout:
    """The clients of one session that keep up; all of them are at one place of its journal."""

    __slots__ = ("_arranged", "_flushed_at", "_journal", "_keeping", "_place", "start_soon")

    def __init__(self, journal: Journal) -> None:
        self.start_soon: Callable[[Callable[[], Awaitable[None]]], object] | None = (
            None  # without it nothing is gathered
        )
        self._journal = journal
        self._place = Place(journal.ring.sequence, journal.offset)
        self._keeping: dict[Follower, None] = {}
        self._flushed_at = -inf
        self._arranged = False  # a flush will come
        journal.on_show = self._shown
        journal.ring.on_full = self._full

    def join(self, follower: Follower) -> None:
        """Write all that is shown from now on to who has read everything up to now, until that does not work or nothing will follow."""
        self.flush()  # the others must be where this one is
        if not self._keeping:
            self._journal.ring.join()
        self._keeping[follower] = None

    def leave(self, follower: Follower) -> None:
        """Write no more to it; idempotent."""
        if follower in self._keeping:
            del self._keeping[follower]
            if not self._keeping:
                self._journal.ring.leave()

    def flush(self) -> None:
        """Write what has not been written yet."""
        journal, before = self._journal, self._place
        self._place = after = Place(journal.ring.sequence, journal.offset)
        if self._keeping and before != after:
            self._flushed_at = trio.current_time()
            self._write(before, after)
        if self._keeping:  # else it is no reader of the ring
            journal.ring.forget()

    def _write(self, before: Place, after: Place) -> None:
        shown = self._journal.ring.after(before.sequence)
        assert shown is not None, "`_full` was not called"
        data = shown[0][0] if len(shown) == 1 else b"".join([frame for frame, _ in shown])
        size, taken = len(data), 0
        for follower in list(self._keeping):
            written = follower.write(data)
            taken += written
            if written < size:
                self._fall(follower, after if written else before)
        if taken:
            self._journal.delivered = after.offset

    def _shown(self) -> None:
        if self._journal.ended:
            self.flush()
            for follower in list(self._keeping):
                self._fall(follower, self._place)
        elif self._keeping and not self._arranged:
            if self.start_soon is None or trio.current_time() >= self._flushed_at + _GATHER:
                self.flush()
            else:
                self._arranged = True
                self.start_soon(self._flush_later)

    def _full(self) -> None:
        if self._place.sequence <= self._journal.ring.first:  # what falls off was sent to nobody yet
            self._journal.commit()
            self.flush()

    async def _flush_later(self) -> None:
        try:
            await trio.sleep_until(self._flushed_at + _GATHER)
        finally:
            self._arranged = False
            self.flush()

    def _fall(self, follower: Follower, place: Place) -> None:
        follower.fall(place)  # it takes its place on the ring before the last of those that keep up leaves it
        self.leave(follower)
