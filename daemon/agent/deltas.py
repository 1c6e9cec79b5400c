"""Text as it comes: the first delta of a block at once, later ones merged over a window."""

from math import inf

import trio

from daemon.journal.journal import Journal
from daemon.journal.present import Kind, OpenBlock, Present


class Deltas:
    """The stream of one session's open block."""

    def __init__(self, journal: Journal, present: Present, window: float) -> None:
        self._journal = journal
        self._present = present
        self._window = window
        self._waiting: list[str] = []  # received, not yet sent
        self._sent_at = -inf
        self._grew = trio.Event()
        journal.late_frames = self._late_frames

    def open(self, turn: int, block: int, kind: Kind) -> None:
        """A block begins."""
        self._present.block = OpenBlock(turn, block, kind)
        self._sent_at = -inf

    def add(self, text: str) -> None:
        """More of the open block."""
        self._waiting.append(text)
        if trio.current_time() >= self._sent_at + self._window:
            self._send()
        else:
            self._grew.set()

    def close(self) -> OpenBlock | None:
        """The open block with all its text; what still waited is sent first, so that its deltas add up to it."""
        self._send()
        block, self._present.block = self._present.block, None
        return block

    async def run(self) -> None:
        """Send what waits when its window is over; until cancelled."""
        while True:
            await self._grew.wait()
            self._grew = trio.Event()
            await trio.sleep_until(self._sent_at + self._window)
            if trio.current_time() >= self._sent_at + self._window:  # a block that began meanwhile has its own window
                self._send()

    def _send(self) -> None:
        block = self._present.block
        if block is None or not self._waiting:
            return
        text, self._waiting = "".join(self._waiting), []
        position = block.length
        block.parts.append(text)
        block.length += len(text)
        self._sent_at = trio.current_time()
        kind = f"claude_{block.kind}_delta"
        self._journal.publish(kind, turn=block.turn, block=block.block, position=position, text=text)

    def _late_frames(self) -> list[bytes]:
        return [self._journal.live_frame(kind, **data) for kind, data in self._present.deltas()]
