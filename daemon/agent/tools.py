"""What the agent can do: commands, files and search, by the names and input schemas of the SDK's `agent_toolset_20260401`.

Only names and schemas are the SDK's; its implementations check a path before they open it, which loses races (D8, D14).
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import msgspec
import trio

from daemon.agent import preview_errors
from daemon.config import Config
from daemon.workspace.files import Refused, Stamp, Workspace, relative
from daemon.workspace.sandbox import Outcome, Sandbox
from daemon.workspace.search import find_files, find_text, grep_command, shown

NAMES = ("bash", "read", "write", "edit", "glob", "grep")
_MAX_CHANGED = 1000  # paths that one event names
_LONGER = 10  # a command may ask for so many times the deadline
TRUNCATED = "\n[truncated: {size} characters in all]"


class _Bash(msgspec.Struct):
    command: str | None = None
    restart: bool | None = None
    timeout_ms: int | None = None


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


class _Search(msgspec.Struct):
    pattern: str
    path: str | None = None


Show = Callable[[str], object]
Cut = Callable[[tuple[str, ...]], object]


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

    def __init__(self, workspace: Workspace, sandbox: Sandbox, config: Config) -> None:
        self._workspace = workspace
        self._sandbox = sandbox
        self._config = config
        self._one: trio.CapacityLimiter | None = None  # of a file tool at a time; made for the first

    async def run(self, name: str, arguments: Any, show: Show = bool, cut: Cut = bool) -> Result:
        """Carry out one call; `show` is given what a command prints as it comes.

        Cancelled, a file is as it was or as it should be, and a command is interrupted as `Sandbox.run` says; `cut` is given the
        paths that it had changed. A file tool that a
        slow disk holds up is not waited for: it puts nothing in place once it is cancelled, and keeps the next one waiting.
        """
        if name == preview_errors.NAME:
            return Result(await preview_errors.report(self._workspace.visits, self._config.preview_settle))
        try:
            if name in self._COMMANDS:
                shape, start = self._COMMANDS[name]
                result = await start(self, msgspec.convert(arguments, shape), show, cut)
            elif name in self._FILES:
                shape, call = self._FILES[name]
                given: Any = msgspec.convert(arguments, shape)
                self._one = self._one or trio.CapacityLimiter(1)
                result = await trio.to_thread.run_sync(call, self, given, abandon_on_cancel=True, limiter=self._one)
            else:
                return Result(f"there is no tool {name!r}", is_error=True)
        except msgspec.ValidationError as error:
            return Result(f"{name}: {error}", is_error=True)
        except Refused as error:
            return Result(f"{name}: {error}", is_error=True)
        if len(result.text) > self._config.max_tool_result:
            text = result.text[: self._config.max_tool_result] + TRUNCATED.format(size=len(result.text))
            return Result(text, result.is_error, result.changed)
        return result

    async def _bash(self, call: _Bash, show: Show, cut: Cut) -> Result:
        if call.restart:
            await self._sandbox.restart()
            return Result("the shell is a new one; what ran in the old one is gone")
        if not call.command or "\0" in call.command:
            raise Refused("command is required, without a NUL")
        _bytes(call.command)
        limit = self._config.tool_deadline
        deadline = min(call.timeout_ms / 1000, limit * _LONGER) if call.timeout_ms and call.timeout_ms > 0 else limit
        before = await self._stamps()
        try:
            outcome = await self._sandbox.run(call.command, deadline=deadline, show=show)
            return Result(_told(outcome), outcome.code != 0, _changed(before, await self._stamps()))
        except trio.Cancelled:
            with trio.move_on_after(self._config.interrupt_grace, shield=True):
                if changed := _changed(before, await self._stamps()):
                    cut(changed)
            raise

    async def _stamps(self) -> dict[str, Stamp]:
        return await trio.to_thread.run_sync(self._workspace.stamps, abandon_on_cancel=True)

    async def _grep(self, call: _Search, _show: Show, _cut: Cut) -> Result:
        command = grep_command(call.pattern, call.path)
        _bytes(command)
        try:
            outcome = await self._sandbox.run_alone(command, deadline=self._config.search_deadline)
        except Refused:
            found = await trio.to_thread.run_sync(
                find_text, self._workspace, call.pattern, call.path, abandon_on_cancel=True
            )
            return Result(shown(found))
        match outcome.code:
            case 0 | 141:  # 141: it was told that what it has found is enough
                return Result(shown(outcome.text.rstrip("\n").split("\n")))
            case 1:
                return Result(shown([]))
            case None:
                raise Refused(f"it took more than {self._config.search_deadline:g} s")
            case _:
                raise Refused(outcome.text.strip())

    def _glob(self, call: _Search) -> Result:
        return Result(shown(find_files(self._workspace, call.pattern, call.path)))

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
        self._sandbox.make_room(len(data))
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
        self._sandbox.make_room(max(0, len(data) - len(text.encode())))
        self._workspace.write(call.file_path, data, check=trio.from_thread.check_cancelled)
        return Result(f"edited {call.file_path} ({count} replacement(s))", changed=(relative(call.file_path),))

    # What a tool takes, and which method carries it out.
    _FILES: ClassVar[dict[str, tuple[type, Callable[["Tools", Any], Result]]]] = {
        "read": (_Read, _read),
        "write": (_Write, _write),
        "edit": (_Edit, _edit),
        "glob": (_Search, _glob),
    }
    _COMMANDS: ClassVar[dict[str, tuple[type, Callable[["Tools", Any, Show, Cut], Awaitable[Result]]]]] = {
        "bash": (_Bash, _bash),
        "grep": (_Search, _grep),
    }


def _told(outcome: Outcome) -> str:
    """A command's output and how it ended, where that is not as it should be."""
    remark = outcome.remark or (f"exit code {outcome.code}" if outcome.code else None)
    if remark is None:
        return outcome.text
    gap = "" if not outcome.text or outcome.text.endswith("\n") else "\n"
    return f"{outcome.text}{gap}[{remark}]"


def _changed(before: dict[str, Stamp], after: dict[str, Stamp]) -> tuple[str, ...]:
    """The paths that are new, gone or other than before."""
    return tuple(sorted({path for path, _ in before.items() ^ after.items()})[:_MAX_CHANGED])


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
