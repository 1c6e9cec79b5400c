"""One turn under way: what its parts share; pure state."""

from dataclasses import dataclass, field
from typing import Any

import trio

from daemon.agent.reply import Reply
from daemon.sessions.record import Usage


@dataclass
class Turn:
    """One turn under way."""

    number: int
    usage: Usage = field(default_factory=Usage)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    blocks: int = 0  # numbered through the whole turn
    reply: Reply | None = None  # the one that streams
    results: list[dict[str, Any]] = field(default_factory=list)  # of the tools run so far in this round
    changed: bool = False
    sums_up: bool = False  # the API sums up a long context for the model that is asked
