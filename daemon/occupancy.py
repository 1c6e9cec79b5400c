"""Counting who is inside, and waiting until nobody is."""

from collections.abc import Iterator
from contextlib import contextmanager

import trio


class Occupancy:
    """How many blocks are being run."""

    def __init__(self) -> None:
        self._inside = 0
        self._emptied = trio.Event()

    def __len__(self) -> int:
        return self._inside

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Count as inside while the block runs."""
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._emptied.set()

    async def wait_empty(self) -> None:
        """Wait until nobody is inside."""
        await trio.lowlevel.checkpoint()
        while self._inside:
            if self._emptied.is_set():  # it may be waited for by another task too
                self._emptied = trio.Event()
            await self._emptied.wait()
