"""Scripts for the model without a key: data files that say what it answers; pure but for `load_script`.

The format is described in docs/scripts.md. A script keeps no state: which step comes next is read off the conversation that a
request carries, so a session that was interrupted goes on where it stopped.
"""

import html
import re
import tomllib
from pathlib import Path
from typing import Any, Literal

import msgspec

from daemon.errors import ConfigError

BUILT_IN = Path(__file__).parent / "scripts" / "restaurant" / "script.toml"
_PLACEHOLDER = re.compile(r"\{\{\s*(prompt|\d+)\s*(\|\s*html\s*)?\}\}")


class Pace(msgspec.Struct, forbid_unknown_fields=True):
    """How fast it talks, at pace 1."""

    first_delta_ms: float = 250.0
    characters_per_second: float = 600.0
    chunk_characters: int = 16


class Fault(msgspec.Struct, forbid_unknown_fields=True):
    """What goes wrong in place of, or in the middle of, a step."""

    kind: Literal["status", "cut", "reset", "error", "malformed", "silence"]
    after: int = 0  # events sent before it happens
    times: int = 1  # how often, until the step works
    status: int = 529  # for kind "status"


class ToolCall(msgspec.Struct, forbid_unknown_fields=True):
    """One tool call of a step."""

    name: str
    input: dict[str, Any] = {}
    input_files: dict[str, str] = {}  # input keys whose value is the text of a file beside the script


class Step(msgspec.Struct, forbid_unknown_fields=True):
    """One reply: what is thought, what is said, what is called."""

    thinking: str = ""
    text: str = ""
    tool: list[ToolCall] = []
    stop_reason: str | None = None
    fault: Fault | None = None


class Turn(msgspec.Struct, forbid_unknown_fields=True):
    """The answer to a prompt, step by step."""

    step: list[Step]
    once: bool = False  # only until it has been played to its end in this conversation
    pattern: str | None = None  # found in the prompt, whatever the case


class Script(msgspec.Struct, forbid_unknown_fields=True):
    """A whole script. Turns are tried in order; the first that applies is played."""

    name: str
    turn: list[Turn]
    description: str = ""
    pace: Pace = msgspec.field(default_factory=Pace)


_THE_END = Step(text="The script has nothing more to say.")


def load_script(path: Path | None) -> Script:
    """Read a script, the built-in one where no path is given; `ConfigError` says what is wrong with it."""
    path = path or BUILT_IN
    try:
        script = msgspec.convert(tomllib.loads(path.read_text()), Script)
        for turn in script.turn:
            re.compile(turn.pattern or "")
            for step in turn.step:
                for call in step.tool:
                    call.input |= {key: _beside(path, name).read_text() for key, name in call.input_files.items()}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError, re.error) as error:
        raise ConfigError(f"the script {path} cannot be used: {error}") from None
    if not script.turn or not all(turn.step for turn in script.turn):
        raise ConfigError(f"the script {path} cannot be used: a turn needs a step, a script needs a turn")
    return script


def _beside(path: Path, name: str) -> Path:
    if Path(name).name != name:
        raise ConfigError(f"the script {path} cannot be used: {name!r} is not the name of a file beside it")
    return path.parent / name


def answer(script: Script, messages: list[dict[str, Any]]) -> Step:
    """What the script says next in this conversation."""
    turns = _prompts(messages)
    done: set[int] = set()
    for prompt, replies in turns[:-1]:
        chosen, _ = _choose(script, prompt, done)
        if chosen is not None and replies >= len(script.turn[chosen].step):
            done.add(chosen)
    prompt, replies = turns[-1]
    chosen, groups = _choose(script, prompt, done)
    if chosen is None or replies >= len(script.turn[chosen].step):
        return _THE_END
    return _fill(script.turn[chosen].step[replies], prompt, groups)


def _choose(script: Script, prompt: str, done: set[int]) -> tuple[int | None, tuple[str, ...]]:
    for number, turn in enumerate(script.turn):
        if turn.once and number in done:
            continue
        found = re.search(turn.pattern or "", prompt, re.IGNORECASE)
        if found:
            return number, tuple(group or "" for group in found.groups())
    return None, ()


def _prompts(messages: list[dict[str, Any]]) -> list[tuple[str, int]]:
    """Each prompt of the conversation with the number of replies it has got."""
    turns: list[tuple[str, int]] = []
    for message in messages:
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if message["role"] == "user":
            text = "\n".join(block["text"] for block in blocks if block["type"] == "text")
            if text or not turns:
                turns.append((text, 0))
        elif turns:
            turns[-1] = (turns[-1][0], turns[-1][1] + 1)
    return turns or [("", 0)]


def _fill(step: Step, prompt: str, groups: tuple[str, ...]) -> Step:
    def value(found: re.Match[str]) -> str:
        name, escape = found.groups()
        text = prompt if name == "prompt" else (groups[int(name) - 1] if 0 < int(name) <= len(groups) else "")
        return html.escape(text.strip()) if escape else text

    def fill(text: Any) -> Any:
        return _PLACEHOLDER.sub(value, text) if isinstance(text, str) else text

    calls = [ToolCall(call.name, {key: fill(text) for key, text in call.input.items()}) for call in step.tool]
    return Step(step.thinking, fill(step.text), calls, step.stop_reason, step.fault)
