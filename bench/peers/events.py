"""An event as a peer sends it, and the commands; for every Python peer."""

import time
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

SIZE = 500  # bytes of JSON


class Command(NamedTuple):
    """One line of stdin."""

    name: str
    events: int
    times: int
    pause: float  # s


def command(line: str) -> Command:
    """A line as a command."""
    name, *rest = line.split()
    if name == "publish":
        return Command(name, int(rest[0]), int(rest[1]), float(rest[2]))
    if name == "each":
        return Command(name, 1, int(rest[0]), float(rest[1]))
    return Command(name, int(rest[0]), 1, 0.0)


def stamp() -> str:
    """What the text of an event begins with: when it was published, in ns of the clock that all processes share."""
    return f"at {time.perf_counter_ns()} "


def event(offset: int) -> bytes:
    """A new event, encoded as fast as Python can, so that no peer is slower for its JSON."""
    text = stamp()
    return msgspec.json.encode(
        {
            "session_id": "bench0000",
            "event": "claude_text",
            "timestamp": "2026-11-22T10:30:00.000Z",
            "data": {"turn": 1, "block": 0, "text": text + _PADDING[len(text) + len(str(offset)) :]},
            "offset": offset,
        }
    )


def events(count: int) -> Iterator[bytes]:
    """Several at once."""
    return (event(offset) for offset in range(1, count + 1))


_PADDING = ""
_PADDING = "x" * (SIZE - len(event(1)) + len(stamp()) + 1)
