"""Text as it comes, as deltas that add up to their block."""

from daemon.journal.journal import Journal
from daemon.journal.present import Kind, OpenBlock, Present


class Deltas:
    """The stream of one session's open block. While `merging`, somebody else says when to send."""

    def __init__(self, journal: Journal, present: Present) -> None:
        self._journal = journal
        self._present = present
        self.merging = False
        self._waiting: list[str] = []  # received, not yet sent
        journal.late_frames = self._late_frames

    def open(self, turn: int, block: int, kind: Kind) -> None:
        """A block begins."""
        self._present.block = OpenBlock(turn, block, kind)

    def add(self, text: str) -> None:
        """More of the open block."""
        self._waiting.append(text)
        if not self.merging:
            self.send()

    def send(self) -> None:
        """Show what waits, as one delta."""
        block = self._present.block
        if block is None or not self._waiting:
            return
        text, self._waiting = "".join(self._waiting), []
        position = block.length
        block.parts.append(text)
        block.length += len(text)
        kind = f"claude_{block.kind}_delta"
        self._journal.publish(kind, turn=block.turn, block=block.block, position=position, text=text)

    def close(self) -> OpenBlock | None:
        """The open block with all its text; what still waited is sent first, so that its deltas add up to it."""
        self.send()
        block, self._present.block = self._present.block, None
        return block

    def _late_frames(self) -> list[bytes]:
        return [self._journal.live_frame(kind, **data) for kind, data in self._present.deltas()]
