"""Scripts for the model without a key: data files that say what it answers; pure but for `load_script`.

The format is described in docs/scripts.md. A script keeps no state: which step comes next is read off the conversation that a
request carries, so a session that was interrupted goes on where it stopped.
"""

import html
import re
import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from daemon.errors import ConfigError

BUILT_IN = Path(__file__).parent / "scripts" / "restaurant" / "script.toml"
_PLACEHOLDER = re.compile(r"\{\{\s*(prompt|\d+)\s*(\|\s*html\s*)?\}\}")


# A pattern may take a time that grows with the cube of the text, and it is searched on the daemon's own thread.
_SEARCHED = 1000  # characters of a prompt

Positive = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class Pace(msgspec.Struct, forbid_unknown_fields=True):
    """How fast it talks, at pace 1."""

    first_delta_ms: Annotated[float, msgspec.Meta(ge=0)] = 250.0
    characters_per_second: Positive = 600.0
    chunk_characters: Count = 16


class Fault(msgspec.Struct, forbid_unknown_fields=True):
    """What goes wrong in place of, or in the middle of, a step."""

    kind: Literal["status", "cut", "reset", "error", "malformed", "silence", "pings"]
    after: Annotated[int, msgspec.Meta(ge=0)] = 0  # events sent before it happens
    at: Literal["text", "tool", "stop"] | None = None  # in place of `after`: where it happens, by name
    times: Count = 1  # how often the same conversation meets it, until the step works
    status: Annotated[int, msgspec.Meta(ge=400, le=599)] = 529  # for kind "status"
    retry_after: Annotated[float, msgspec.Meta(ge=0)] | None = None  # s, for kind "status"


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
    cut_tool: bool = False  # the last tool call's input breaks off
    usage: dict[str, int] = {}  # in place of what is counted
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
    context_window: Count | None = None  # tokens of a conversation; a longer one is refused
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
    except (OSError, ValueError, OverflowError, RecursionError, re.error) as error:
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
        if (groups := _groups(turn.pattern or "", prompt[:_SEARCHED])) is not None:
            return number, groups
    return None, ()


@lru_cache(4096)  # every request asks again for all prompts of its conversation
def _groups(pattern: str, text: str) -> tuple[str, ...] | None:
    found = re.search(pattern, text, re.IGNORECASE)
    return None if found is None else tuple(group or "" for group in found.groups())


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
    return msgspec.structs.replace(step, text=fill(step.text), tool=calls)
