"""What a shell prints, taken from its pipe: read where somebody sees it, thrown away within the kernel where nobody does."""

import fcntl
import os
import struct
import termios

from daemon.workspace.output import Output

READ = 1 << 16  # bytes of one read: 0.03 ms of the daemon's time


class Printed:
    """The reading end of a shell's output, and an open /dev/null for what of a flood is shown to nobody."""

    def __init__(self, pipe: int, nowhere: int) -> None:
        self._pipe = pipe
        self._nowhere = nowhere

    def waiting(self) -> int:
        """How many bytes are in the pipe."""
        return int(struct.unpack("i", fcntl.ioctl(self._pipe, termios.FIONREAD, b"\0" * 4))[0])

    def take(self, output: Output) -> int | None:
        """Take some of it, without waiting; how much, None at its end. Of a flood only the end is copied: `yes` fills any core."""
        skipped = 0
        if output.full and (surplus := self.waiting() - output.last) > 0:
            skipped = os.splice(self._pipe, self._nowhere, surplus)
            output.skip(skipped)
        try:
            data = os.read(self._pipe, READ)
        except BlockingIOError:
            return skipped
        output.feed(data)
        return skipped + len(data) if data else None

    def take_waiting(self, output: Output) -> None:
        """Take all that is in there now, and not what comes meanwhile."""
        left = self.waiting()
        while left > 0:
            left -= self.take(output) or left
