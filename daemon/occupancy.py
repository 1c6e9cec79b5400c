"""Who is inside, and waiting until nobody is."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Generic, TypeVar

import trio

from daemon.awaited import Again

T = TypeVar("T")


class Occupancy(Generic[T]):
    """Whose blocks are being run."""

    __slots__ = ("_emptied", "_entered", "_inside")

    def __init__(self) -> None:
        self._inside: dict[int, T] = {}
        self._entered = 0  # so far
        self._emptied = Again()

    def __len__(self) -> int:
        return len(self._inside)

    def __iter__(self) -> Iterator[T]:
        return iter(list(self._inside.values()))

    def entered(self, who: T) -> AbstractContextManager[None]:
        """Count someone as inside while the block runs."""
        return _Inside(self, who)

    def enter(self, who: T) -> int:
        """Count someone as inside; the number to leave with."""
        self._entered += 1
        self._inside[self._entered] = who
        return self._entered

    def leave(self, number: int) -> None:
        """They are gone."""
        del self._inside[number]
        if not self._inside:
            self._emptied.tell()

    async def wait_empty(self) -> None:
        """Wait until nobody is inside."""
        await trio.lowlevel.checkpoint()
        while self._inside:
            await self._emptied.wait()


class _Inside(AbstractContextManager[None], Generic[T]):
    """A block of `entered`: by hand, as each idle client is in two, and a generator takes ten times as much memory."""

    __slots__ = ("_number", "_occupancy", "_who")

    def __init__(self, occupancy: Occupancy[T], who: T) -> None:
        self._occupancy = occupancy
        self._who = who

    def __enter__(self) -> None:
        self._number = self._occupancy.enter(self._who)

    def __exit__(self, *_: object) -> None:
        self._occupancy.leave(self._number)
