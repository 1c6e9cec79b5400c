"""What a person sees of a session in a terminal.

The text of events is the agent's: nothing of it may move the cursor, change a title, or turn a line round.
"""

import re
from typing import Any

from rich.console import Console
from rich.text import Text

# Control characters but newline and tab, and what reorders a line. Rich passes most of them on.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """The text with a mark in the place of each character that a terminal would obey."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def in_one_line(value: object) -> str:
    """The first line of a text, with a sign where there is more."""
    first, *more = str(value).strip().splitlines() or [""]
    return f"{first} …" if more else first


def size(count: int) -> str:
    """Bytes for people."""
    return f"{count} B" if count < 1000 else f"{count / 1000:.1f} kB" if count < 1_000_000 else f"{count / 1e6:.1f} MB"


class Transcript:
    """Prints events as they come; text grows in place from its deltas, and a block is never printed twice."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: dict[tuple[int, int], int] = {}  # (turn, block) -> characters printed
        self._in_line = False

    def show(self, event: dict[str, Any]) -> None:
        """One event of the wire."""
        data: dict[str, Any] = event["data"]
        match event["event"]:
            case "turn_start":
                self._shown.clear()
                self._line(Text.assemble(("\n▸ ", "bold cyan"), (data["prompt"], "bold")))
            case "claude_text_delta":
                self._grow(data["turn"], data["block"], data["position"], data["text"], "")
            case "claude_thinking_delta":
                self._grow(data["turn"], data["block"], data["position"], data["text"], "dim italic")
            case "claude_text":
                self._grow(data["turn"], data["block"], 0, data["text"], "")
                self._break()
            case "claude_thinking":
                self._grow(data["turn"], data["block"], 0, data["thinking"], "dim italic")
                self._break()
            case "claude_tool_use":
                given = data["input"] if isinstance(data["input"], dict) else {}
                what = in_one_line(given.get("file_path") or given.get("command") or "")
                content = given.get("content")
                amount = f"  {size(len(content.encode()))}" if isinstance(content, str) else ""
                self._line(
                    Text.assemble(("  ● ", "cyan"), (in_one_line(data["tool"]), "bold"), f" {what}", (amount, "dim"))
                )
            case "claude_tool_result" if data["is_error"]:
                self._line(Text(f"    {data['result']}", "red"))
            case "approval_required":
                self._line(Text(f"    ? {in_one_line(data['tool'])} waits for a person's approval", "yellow"))
            case "approval_resolved" if data["decision"] != "approve":
                self._line(
                    Text(f"    {in_one_line(data['decision'])}: {in_one_line(data['reason'] or 'no reason')}", "yellow")
                )
            case "preview_error":
                self._line(
                    Text(f"  ! in the preview, {in_one_line(data['path'])}: {in_one_line(data['message'])}", "red")
                )
            case "pages_discovered":
                self._line(Text(f"\n  {data['total_pages']} page(s):", "bold"))
                for page in data["pages"]:
                    sections = f"  {len(page['sections'])} sections" if page["sections"] else ""
                    self._line(
                        Text.assemble(
                            "  ○ ", in_one_line(page["title"]), (f"  /{in_one_line(page['path'])}{sections}", "dim")
                        )
                    )
            case "turn_complete":
                used = data["usage"]
                seconds = data["duration_ms"] / 1000
                tokens = f"{used['input_tokens']} tokens in, {used['output_tokens']} out"
                style = "red" if data["is_error"] else "green"
                self._line(
                    Text.assemble(
                        ("\n  ✓ ", style),
                        f"turn {data['turn']}: {data['stop_reason']} after {seconds:.1f} s, ",
                        (tokens, "dim"),
                    )
                )
            case "turn_retry":
                self._line(Text(f"  ↻ {data['reason']}: trying again", "dim"))
            case "agent_error":
                self._line(Text(f"  ! {data['error_type']}: {data['error']}", "bold red"))
            case "session_end":
                self._line(Text(f"\n  session ended: {data['reason']}", "dim"))

    def _grow(self, turn: int, block: int, position: int, text: str, style: str) -> None:
        """Print what of a block has not been printed yet."""
        shown = self._shown.get((turn, block), 0)
        if position > shown:
            return  # a delta was skipped; the whole block follows
        new = text[shown - position :]
        self._shown[turn, block] = max(shown, position + len(text))
        if new:
            self._print(Text(new, style), end="")
            self._in_line = not new.endswith("\n")

    def _break(self) -> None:
        if self._in_line:
            self._console.print()
            self._in_line = False

    def _line(self, text: Text) -> None:
        self._break()
        self._print(text)

    def _print(self, text: Text, end: str = "\n") -> None:
        text.plain = printable(text.plain)
        self._console.print(text, end=end, soft_wrap=True)
