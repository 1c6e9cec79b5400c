"""What the agent can do: the file tools, by the names and input schemas of the SDK's `agent_toolset_20260401`.

Only names and schemas are the SDK's; its implementations check a path before they open it, which loses races (D8, D14).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec
import trio

from daemon.agent import preview_errors
from daemon.workspace.files import Refused, Workspace, relative

NAMES = ("read", "write", "edit")
TRUNCATED = "\n[truncated: {size} characters in all]"


class _Read(msgspec.Struct):
    file_path: str
    view_range: list[int] | None = None


class _Write(msgspec.Struct):
    file_path: str
    content: str


class _Edit(msgspec.Struct):
    file_path: str
    old_string: str
    new_string: str
    replace_all: bool | None = None


@dataclass(frozen=True)
class Result:
    """What a tool call came to."""

    text: str
    is_error: bool = False
    changed: tuple[str, ...] = ()  # paths beneath the workspace


@cache
def definitions() -> tuple[dict[str, Any], ...]:
    """The tools as the Messages API takes them. The first call blocks: the SDK makes its schemas by pydantic, in 10 ms."""
    from anthropic.lib.tools.agent_toolset import AgentToolContext, beta_agent_toolset_20260401  # noqa: PLC0415

    known: list[Any] = [tool.to_dict() for tool in beta_agent_toolset_20260401(AgentToolContext(workdir="/"))]
    kept = ("name", "description", "input_schema")
    theirs = [{key: tool[key] for key in kept} for tool in known if tool["name"] in NAMES]
    return (*theirs, preview_errors.DEFINITION)


class Tools:
    """The tools of one session."""

    def __init__(self, workspace: Workspace, *, max_result: int, settle: float) -> None:
        self._workspace = workspace
        self._max_result = max_result
        self._settle = settle
        self._one = trio.CapacityLimiter(1)
        calls = ((_Read, self._read), (_Write, self._write), (_Edit, self._edit))
        self._tools: dict[str, tuple[type, Callable[[Any], Result]]] = dict(zip(NAMES, calls, strict=True))

    async def run(self, name: str, arguments: Any) -> Result:
        """Carry out one call. Cancelled, it is not waited for: a file is as it was or as it should be.

        A call that a slow disk holds up puts nothing in place once it is cancelled, and keeps the next one waiting: none
        overtakes another.
        """
        if name == preview_errors.NAME:
            return Result(await preview_errors.report(self._workspace.visits, self._settle))
        if name not in self._tools:
            return Result(f"there is no tool {name!r}", is_error=True)
        shape, call = self._tools[name]
        try:
            given: Any = msgspec.convert(arguments, shape)
            result = await trio.to_thread.run_sync(call, given, abandon_on_cancel=True, limiter=self._one)
        except msgspec.ValidationError as error:
            return Result(f"{name}: {error}", is_error=True)
        except Refused as error:
            return Result(f"{name}: {error}", is_error=True)
        if len(result.text) > self._max_result:
            text = result.text[: self._max_result] + TRUNCATED.format(size=len(result.text))
            return Result(text, result.is_error, result.changed)
        return result

    def _read(self, call: _Read) -> Result:
        lines = _text(self._workspace, call.file_path).split("\n")
        if call.view_range is None:
            return Result("\n".join(lines))
        if len(call.view_range) != 2:
            raise Refused("view_range is [first line, last line]")
        first, last = call.view_range
        return Result("\n".join(lines[max(0, first - 1) : None if last == -1 else max(0, last)]))

    def _write(self, call: _Write) -> Result:
        data = _bytes(call.content)
        self._workspace.write(call.file_path, data, check=trio.from_thread.check_cancelled)
        return Result(f"wrote {len(data)} bytes to {call.file_path}", changed=(relative(call.file_path),))

    def _edit(self, call: _Edit) -> Result:
        text = _text(self._workspace, call.file_path)
        count = text.count(call.old_string) if call.old_string else 0
        if count == 0:
            raise Refused(f"old_string does not occur in {call.file_path}")
        if count > 1 and not call.replace_all:
            raise Refused(f"old_string occurs {count} times in {call.file_path}; it must be unique, or set replace_all")
        # Known before it is made: replacing every letter of a large file by a long text could take all memory.
        if len(text) + count * (len(call.new_string) - len(call.old_string)) > self._workspace.max_file:
            raise Refused(f"{call.file_path}: larger than {self._workspace.max_file} bytes")
        data = _bytes(text.replace(call.old_string, call.new_string))
        self._workspace.write(call.file_path, data, check=trio.from_thread.check_cancelled)
        return Result(f"edited {call.file_path} ({count} replacement(s))", changed=(relative(call.file_path),))


def _text(workspace: Workspace, path: str) -> str:
    try:
        return workspace.read(path).decode()
    except UnicodeDecodeError:
        raise Refused(f"{path}: not UTF-8 text") from None


def _bytes(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise Refused("the text holds half of a surrogate pair") from None
