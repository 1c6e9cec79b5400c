"""The processes of a sandbox as the host sees them, by /proc; Linux only, elsewhere there are none to see."""

import os
import signal
import stat
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")
_BLOCK = 512  # bytes of st_blocks, whatever the file system
_MAX = 10_000  # processes of one tree that are looked at


def descendants(pid: int) -> list[int]:
    """A process's children and theirs, parents first. Those that came or went meanwhile may be missing."""
    found = _children(pid)
    for each in found:
        if len(found) >= _MAX:
            break
        found += _children(each)
    return found


def _children(pid: int) -> list[int]:
    found: list[int] = []
    folder = f"/proc/{pid}/task"
    try:
        threads = os.listdir(folder)  # noqa: PTH208  # names alone
    except OSError:
        return found
    for thread in threads:
        with suppress(OSError), open(f"{folder}/{thread}/children", "rb", buffering=0) as file:  # noqa: PTH123  # quick
            found += map(int, file.read().split())
    return found


def deleted_size(pids: list[int], device: int) -> int:
    """What files of a device take that these processes keep open and that have no name any more; bytes, blocking."""
    found: dict[int, int] = {}
    for pid in pids:
        folder = f"/proc/{pid}/fd"
        try:
            names = os.listdir(folder)  # noqa: PTH208  # names alone
        except OSError:
            continue
        for name in names:
            try:
                status = os.stat(f"{folder}/{name}")  # noqa: PTH116  # a name of /proc, not a path
            except OSError:
                continue
            if status.st_nlink == 0 and status.st_dev == device and stat.S_ISREG(status.st_mode):
                found[status.st_ino] = status.st_blocks * _BLOCK
    return sum(found.values())


def interrupt(pids: list[int]) -> None:
    """SIGINT to those that do not ignore it: a shell starts its background processes ignoring it, as a terminal expects."""
    for pid in pids:
        _signal(pid, signal.SIGINT, unless_ignored=True)


def kill(pids: list[int]) -> None:
    """SIGKILL to all that are still there."""
    for pid in pids:
        _signal(pid, signal.SIGKILL)


def _signal(pid: int, number: int, *, unless_ignored: bool = False) -> None:
    try:
        fd = os.pidfd_open(pid)  # from here on the number means this process or none
    except OSError:
        return
    try:
        if not (unless_ignored and _ignores(pid, number)):
            signal.pidfd_send_signal(fd, number)
    except OSError:  # it has ended
        return
    finally:
        os.close(fd)


def _ignores(pid: int, number: int) -> bool:
    for line in (_PROC / str(pid) / "status").read_text().splitlines():
        if line.startswith("SigIgn:"):
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return True
