"""Counts instead of seconds: what the code that runs in a block calls and how often Trio steps its tasks. Nothing is patched."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import trio

_SOCKET = {"write", "writev", "sendfile", "socket.send", "socket.sendall", "socket.sendmsg"}
_FILE = {"pwrite", "pwritev"}
_ENCODE = {"json_encode", "Encoder.encode", "Encoder.encode_into"}  # msgspec's function and its object


@dataclass(eq=False)  # Trio keeps instruments in a dict
class Counts(trio.abc.Instrument):
    """What happened; the task that counts is left out of the steps."""

    steps: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    task: Any = None

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps += task is not self.task

    @property
    def socket_writes(self) -> int:
        return sum(self.calls[name] for name in _SOCKET)

    @property
    def file_writes(self) -> int:
        return sum(self.calls[name] for name in _FILE)

    @property
    def encodes(self) -> int:
        return sum(self.calls[name] for name in _ENCODE)

    @property
    def joins(self) -> int:
        """How often bytes were put together to new ones, which copies all of them."""
        return self.calls["bytes.join"]


@contextmanager
def counting() -> Iterator[Counts]:
    """Count until the block ends."""
    counts = Counts(task=trio.lowlevel.current_task())

    def profile(_frame: Any, event: str, called: Any) -> None:
        if event == "c_call":
            counts.calls[_name(called)] += 1

    trio.lowlevel.add_instrument(counts)
    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        yield counts
    finally:
        sys.setprofile(before)
        trio.lowlevel.remove_instrument(counts)


def _name(called: Any) -> str:
    """A function's own name; a method's behind that of the class, as a task is stepped by a `send` too."""
    owner = getattr(called, "__self__", None)
    return (
        called.__name__ if owner is None or hasattr(owner, "__spec__") else f"{type(owner).__name__}.{called.__name__}"
    )
