"""Keeping secrets out of what other processes can read of this one."""

import ctypes
import os
import sys

_PR_SET_DUMPABLE = 4


def take_secret(name: str) -> str | None:
    """A secret out of the environment, and out of what /proc/<pid>/environ goes on showing of it; None where it is not set."""
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_void_p
    place = libc.getenv(os.fsencode(name))
    value = os.environ.get(name)
    if place and sys.platform == "linux":
        ctypes.memset(
            place, 0, len(ctypes.string_at(place))
        )  # where the kernel put it: `unsetenv` only forgets the place
    os.environ.pop(name, None)
    return value or None


def refuse_inspection() -> None:
    """Let no other process of this user read this one's memory, environment and descriptors; no core dump either. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
