"""What is going on at this moment and is not yet an event: the text that is streaming, the tools that run and what they print,
the ones that wait for a person.

Whoever joins now is told of it. Written by the agent, read by clients; plain state, no waiting.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["text", "thinking"]


@dataclass
class OpenBlock:
    """A block of the model's answer that is not finished."""

    turn: int
    block: int
    kind: Kind
    parts: list[str] = field(default_factory=list)  # all of it that clients were sent
    length: int = 0  # characters in them


@dataclass
class OpenOutput:
    """What a tool that still runs has printed; only what clients are shown, which its tool bounds."""

    tool_use_id: str
    parts: list[str] = field(default_factory=list)
    length: int = 0  # characters in them


@dataclass
class Present:
    """One session's now."""

    block: OpenBlock | None = None
    output: OpenOutput | None = None
    running_tools: dict[str, dict[str, Any]] = field(default_factory=dict)  # tool_use_id -> what claude_tool_use said
    approvals: dict[str, dict[str, Any]] = field(default_factory=dict)  # tool_use_id -> what approval_required said

    def deltas(self) -> list[tuple[str, dict[str, Any]]]:
        """For a client that joins in the middle of a block, or of what a tool prints: one delta with everything so far."""
        found: list[tuple[str, dict[str, Any]]] = []
        if (block := self.block) is not None and block.parts:
            text = "".join(block.parts)
            data = {"turn": block.turn, "block": block.block, "position": 0, "text": text}
            found.append((f"claude_{block.kind}_delta", data))
        if (output := self.output) is not None and output.parts:
            data = {"tool_use_id": output.tool_use_id, "position": 0, "text": "".join(output.parts)}
            found.append(("tool_output", data))
        return found

    def pending(self) -> dict[str, list[dict[str, Any]]]:
        """The `pending` of `connected`."""
        return {"approvals": list(self.approvals.values()), "running_tools": list(self.running_tools.values())}
