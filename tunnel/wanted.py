"""Something that is had once for all who want it: a value, or why there is none for now."""

from typing import Generic, TypeVar

import trio

from tunnel import TunnelError

_T = TypeVar("_T")


class Wanted(Generic[_T]):
    """One task gets the value, many wait for it; after a failure the next one who wants it asks again."""

    def __init__(self) -> None:
        self._value: _T | None = None
        self._error: TunnelError | None = None
        self._settled = trio.Event()
        self._asked = trio.Event()

    def have(self, value: _T) -> None:
        """Here it is."""
        self._value = value
        self._settled.set()

    async def lack(self, error: TunnelError) -> None:
        """It cannot be had; wait until somebody asks again."""
        self._value, self._error, self._asked = None, error, trio.Event()
        self._settled.set()
        await self._asked.wait()

    async def get(self, patience: float) -> _T:
        """The value, waited for up to `patience` seconds. Raises `TunnelError`."""
        if self._settled.is_set() and self._value is None:
            self._settled, self._error = trio.Event(), None
        self._asked.set()
        with trio.move_on_after(patience):
            await self._settled.wait()
        if self._value is None:
            raise self._error or TunnelError("no_public_url", f"there was no public URL within {patience:g} s")
        return self._value
