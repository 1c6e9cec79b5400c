"""What tasks wait for, at no cost while nobody does: an Event of Trio's takes 0.3 KB, and each session would have several."""

import trio


class Once:
    """What happens once."""

    __slots__ = ("_event", "_happened")

    def __init__(self) -> None:
        self._happened = False
        self._event: trio.Event | None = None  # while somebody waits

    def set(self) -> None:
        """It has happened: whoever waits goes on; idempotent."""
        self._happened = True
        if self._event is not None:
            self._event.set()
            self._event = None

    def is_set(self) -> bool:
        """Whether it has happened."""
        return self._happened

    async def wait(self) -> None:
        """Wait until it has happened."""
        if self._happened:
            await trio.lowlevel.checkpoint()
            return
        if self._event is None:
            self._event = trio.Event()
        await self._event.wait()


class Again:
    """What happens time after time."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event: trio.Event | None = None  # while somebody waits

    def tell(self) -> None:
        """It happens now: whoever waits goes on."""
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait(self) -> None:
        """Wait until it happens the next time. A hint: look again after it."""
        if self._event is None:
            self._event = trio.Event()
        await self._event.wait()
