"""Opening a path beneath a folder so that nothing can lead out of it; blocking.

Looking first and opening then loses a race against whoever swaps a folder for a symlink. Linux answers in one call:
openat2(2) with RESOLVE_BENEATH. Elsewhere each component is opened by itself and no symlink is followed at all.
"""

import ctypes
import errno
import os
import sys
from collections.abc import Callable

_OPENAT2 = 437  # the same number on every architecture since Linux 5.6
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_BENEATH = 0x08
_ALWAYS = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY  # O_NONBLOCK: opening a FIFO must not wait for its other end
_TRIES = 16  # the kernel answers EAGAIN while somebody renames on the way

OpenBeneath = Callable[[int, str, int, int], int]


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_libc = ctypes.CDLL(None, use_errno=True)


def open_kernel(root: int, path: str, flags: int, mode: int) -> int:
    """By openat2(2): symlinks are followed as long as they stay beneath the root."""
    how = _OpenHow(flags | _ALWAYS, mode if flags & os.O_CREAT else 0, _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS)
    code = errno.EAGAIN
    for _ in range(_TRIES):
        fd = _libc.syscall(_OPENAT2, root, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how))
        if fd >= 0:
            return int(fd)
        code = ctypes.get_errno()
        if code not in {errno.EAGAIN, errno.EINTR}:
            break
    raise OSError(code, os.strerror(code), path)


def open_components(root: int, path: str, flags: int, mode: int) -> int:
    """Component by component, without following any symlink: the form for systems without openat2."""
    parts = [part for part in path.split("/") if part not in {"", "."}] or ["."]
    if ".." in parts:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
    folder = root
    try:
        for part in parts[:-1]:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | _ALWAYS, dir_fd=folder)
            if folder != root:
                os.close(folder)
            folder = below
        return os.open(parts[-1], flags | os.O_NOFOLLOW | _ALWAYS, mode, dir_fd=folder)
    finally:
        if folder != root:
            os.close(folder)


def _choose() -> OpenBeneath:
    if sys.platform != "linux":
        return open_components
    root = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.close(open_kernel(root, ".", os.O_RDONLY | os.O_DIRECTORY, 0))
    except OSError:  # a kernel before 5.6, or a seccomp filter
        return open_components
    else:
        return open_kernel
    finally:
        os.close(root)


open_beneath: OpenBeneath = _choose()
