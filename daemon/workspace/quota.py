"""How much a workspace holds, counted from its folder's descriptor; blocking.

Counted, as no file system promises a quota to everyone; what a file takes on disk counts, so a sparse file does not.
"""

import os
import stat
from dataclasses import dataclass, field

_MAX_DEPTH = 128  # folders in folders
_BLOCK = 512  # bytes of st_blocks, whatever the file system


@dataclass
class Usage:
    """What was counted."""

    size: int = 0  # bytes on disk
    entries: int = 0
    hidden: bool = False  # there is a folder that cannot be counted
    processes: int = 0  # that the session runs: its shell is one
    seen: set[tuple[int, int]] = field(default_factory=set)  # files with several names are counted once

    def excess(self, max_size: int, max_entries: int) -> str | None:
        """What of it is beyond its limit, in words; None where nothing is."""
        if self.size > max_size:
            return f"the workspace holds more than its {max_size >> 20} MB"
        if self.entries > max_entries:
            return f"the workspace holds more than {max_entries} files and folders"
        if self.hidden:
            return f"the workspace has a folder that cannot be counted: more than {_MAX_DEPTH} deep, or unreadable"
        return None


def measure(root: int, max_entries: int) -> Usage:
    """Count beneath a folder, without following a symlink; it ends soon after `max_entries`."""
    usage = Usage()
    _count(root, ".", 0, max_entries, usage)
    return usage


def _count(above: int, name: str, depth: int, max_entries: int, usage: Usage) -> None:
    try:
        folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
    except PermissionError:
        usage.hidden = True
        return
    except OSError:  # it went away, or became something else
        return
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                usage.entries += 1
                if usage.entries > max_entries:
                    return
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                except PermissionError:
                    usage.hidden = True
                    return
                if stat.S_ISDIR(status.st_mode):
                    if depth >= _MAX_DEPTH:
                        usage.hidden = True
                    else:
                        _count(folder, entry.name, depth + 1, max_entries, usage)
                elif status.st_nlink > 1:
                    if (status.st_dev, status.st_ino) in usage.seen:
                        continue
                    usage.seen.add((status.st_dev, status.st_ino))
                usage.size += status.st_blocks * _BLOCK
    finally:
        os.close(folder)
