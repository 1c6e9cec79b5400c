"""The pages of a workspace's site that are open in somebody's browser: what they wait for, and what goes wrong in them.

Who may open the preview may claim anything of it, and a page may be made to; so all that is kept of it is bounded.
"""

from math import inf
from typing import NamedTuple

import trio

from daemon.awaited import Again

_MAX_WAITING = 200  # pages at once
_MAX_ERRORS = 20  # different ones, until the files change
_MAX_TOLD = 200  # in one run of a session
_MAX_TEXT = 500  # characters of a message; of a path or a source, half of it
_STILL_OPEN = 10.0  # s: between two questions, or while it reloads, a page does not wait


class Full(Exception):
    """As many pages wait as may."""


class PageError(NamedTuple):
    """What went wrong in a page, as it says itself."""

    path: str
    message: str
    source: str = ""
    line: int = 0
    column: int = 0

    def bounded(self) -> "PageError":
        """The same in a size that can be kept."""
        half = _MAX_TEXT // 2
        places = (min(max(number, 0), 1 << 31) for number in (self.line, self.column))
        return PageError(self.path[:half], self.message[:_MAX_TEXT], self.source[:half], *places)


class Visits:
    """The open pages of one workspace."""

    def __init__(self) -> None:
        self.version = 0  # how often the files have changed
        self.changed_at = -inf
        self.errors: list[PageError] = []  # since then
        self._told = 0
        self._waiting = 0
        self._seen_at = -inf
        self._closed = False
        self._woken = Again()

    @property
    def open(self) -> bool:
        """Whether somebody has a page open, as far as can be told."""
        return self._waiting > 0 or trio.current_time() - self._seen_at < _STILL_OPEN

    def changed(self) -> None:
        """The files are not what they were: the pages may reload, and what went wrong in them counts no more."""
        self.version += 1
        self.changed_at = trio.current_time()
        self.errors.clear()
        self._woken.tell()

    def close(self) -> None:
        """Nobody waits any more."""
        self._closed = True
        self._woken.tell()

    async def wait_change(self, version: int) -> None:
        """Return when the files are of another version, or nothing will change any more. Raises `Full`."""
        if self._waiting >= _MAX_WAITING:
            raise Full
        self._waiting += 1
        try:
            while self.version == version and not self._closed:
                await self._woken.wait()
        finally:
            self._waiting -= 1
            self._seen_at = trio.current_time()

    def note(self, error: PageError) -> PageError | None:
        """Keep what a page says went wrong; None where that is not news, or there was too much of it already."""
        error = error.bounded()
        if error in self.errors or len(self.errors) >= _MAX_ERRORS or self._told >= _MAX_TOLD:
            return None
        self._told += 1
        self.errors.append(error)
        return error
