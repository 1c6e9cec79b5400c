"""Who is inside, and waiting until nobody is."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Generic, TypeVar

import trio

T = TypeVar("T")


class Occupancy(Generic[T]):
    """Whose blocks are being run."""

    def __init__(self) -> None:
        self._inside: dict[int, T] = {}
        self._numbers = count()
        self._emptied = trio.Event()

    def __len__(self) -> int:
        return len(self._inside)

    def __iter__(self) -> Iterator[T]:
        return iter(list(self._inside.values()))

    @contextmanager
    def entered(self, who: T) -> Iterator[None]:
        """Count someone as inside while the block runs."""
        number = next(self._numbers)
        self._inside[number] = who
        try:
            yield
        finally:
            del self._inside[number]
            if not self._inside:
                self._emptied.set()

    async def wait_empty(self) -> None:
        """Wait until nobody is inside."""
        await trio.lowlevel.checkpoint()
        while self._inside:
            if self._emptied.is_set():  # it may be waited for by another task too
                self._emptied = trio.Event()
            await self._emptied.wait()
