"""When what gathers on connections is read: once a window, or sooner where something ends or begins.

The kernel waits for it (`SO_RCVLOWAT`), and one task ends the windows of all connections by asking the kernel for less. A timer
for each would cost several times what it waits for.
"""

import socket
import sys
from contextlib import suppress

import trio

from daemon.awaited import Again

# Bytes for which a window ends early: more than two short pieces of text, less than the end of an answer, or that of a block
# with the beginning and the first piece of the next one. These are to be seen at once.
_TURNING = 280
_TOGETHER = 0.25  # of a window, by which one may end sooner: together with others
_BY_KERNEL = sys.platform == "linux"  # elsewhere nobody is woken by asking for less


class Windows:
    """Those of all connections, of one length in s. `run` must be running."""

    def __init__(self, length: float) -> None:
        self._length = length
        self._ends: dict[trio.socket.SocketType, float] = {}  # in the order in which they come
        self._begun = Again()

    async def gather(self, connection: trio.socket.SocketType) -> None:
        """Wait until there is something to read, and the window is over or something has ended or begun. It may be closed meanwhile."""
        if not _BY_KERNEL:
            await trio.lowlevel.checkpoint()
            return
        with suppress(OSError, trio.ClosedResourceError):  # as the next read will say
            _wake_for(connection, _TURNING)
            self._ends[connection] = trio.current_time() + self._length
            self._begun.tell()
            try:
                await trio.lowlevel.wait_readable(connection)
            finally:
                if self._ends.pop(connection, None) is not None:
                    _wake_for(connection, 1)

    async def run(self) -> None:
        """End windows, until cancelled."""
        while True:
            if not self._ends:
                await self._begun.wait()
            await trio.sleep_until(next(iter(self._ends.values()), 0))
            due = trio.current_time() + self._length * _TOGETHER
            for connection, end in list(self._ends.items()):
                if end > due:
                    break
                del self._ends[connection]
                with suppress(OSError):  # closed, and its task not yet told
                    _wake_for(connection, 1)


def _wake_for(connection: trio.socket.SocketType, size: int) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)
