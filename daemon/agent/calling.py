"""Carrying out one tool call of the model, and saying so."""

from collections.abc import Callable
from typing import Any

import trio

from daemon.agent.approvals import Approvals
from daemon.agent.conversation import tool_result
from daemon.agent.tools import Result, Tools
from daemon.agent.turn import Turn
from daemon.journal.journal import Journal
from daemon.journal.present import OpenOutput, Present

INTERRUPTED = "interrupted before it ran to its end"
NOT_RUN = "interrupted while it waited for a person's approval; it was not run"


class Calling:
    """How one session runs tools; `changed` is called after each that changed files."""

    def __init__(
        self, *, journal: Journal, present: Present, approvals: Approvals, tools: Tools, changed: Callable[[], None]
    ) -> None:
        self._journal = journal
        self._present = present
        self._approvals = approvals
        self._tools = tools
        self._changed = changed

    async def answer(self, turn: Turn, call: dict[str, Any]) -> dict[str, Any]:
        """Run one tool, once it may, and say so; the answer for the model. Cancelled, it is among the turn's results."""
        said = {"turn": turn.number, "tool_use_id": call["id"], "tool": call["name"], "input": call["input"]}
        self._journal.append("claude_tool_use", **said)
        started: float | None = None
        printed = self._present.output = OpenOutput(call["id"])

        def show(piece: str) -> None:
            self._journal.publish("tool_output", tool_use_id=call["id"], position=printed.length, text=piece)
            printed.length += len(piece)
            printed.parts.append(piece)

        def changed(paths: tuple[str, ...]) -> None:
            turn.changed = True
            self._journal.append("files_changed", paths=list(paths))
            self._changed()

        text, is_error = NOT_RUN, True
        try:
            if (refusal := await self._approvals.refusal(call)) is not None:
                result = Result(refusal, is_error=True)
            else:
                self._present.running_tools[call["id"]] = said
                started, text = trio.current_time(), INTERRUPTED
                result = await self._tools.run(call["name"], call["input"], show, cut=changed)
            text, is_error = result.text, result.is_error
        except trio.Cancelled:
            text = "\n".join(filter(None, ["".join(printed.parts).rstrip("\n"), text]))
            turn.results.append(tool_result(call["id"], text, is_error=True))
            raise
        finally:
            self._present.running_tools.pop(call["id"], None)
            self._present.output = None
            duration = 0 if started is None else round((trio.current_time() - started) * 1000)
            told = {"turn": turn.number, "tool_use_id": call["id"], "result": text, "is_error": is_error}
            self._journal.append("claude_tool_result", **told, duration_ms=duration)
        if result.changed:
            changed(result.changed)
        return tool_result(call["id"], text, is_error=is_error)
