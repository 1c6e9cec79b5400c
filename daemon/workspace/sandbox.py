"""One session's sandbox: its shell, started by the first command, and what a command may cost.

A session that runs no command has none of it. The shell goes on from command to command; where it had to be killed, or has
ended by itself, the next command gets a new one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import trio

from daemon.awaited import Again
from daemon.config import Config
from daemon.errors import first_cause
from daemon.log import log
from daemon.services import Services
from daemon.workspace.files import Refused, Workspace
from daemon.workspace.output import Output
from daemon.workspace.processes import deleted_size
from daemon.workspace.quota import Usage
from daemon.workspace.shell import Call, Shell, ShellUnusable
from daemon.workspace.spawning import open_shell

_REMARK = 512  # characters that are left for what is said about an output
_CLEANING = 1000  # empty files and folders that a command may make in a workspace that is full
_COUNT_SHARE = 10  # counting takes at most a tenth of the time


@dataclass(frozen=True)
class Outcome:
    """What a command came to; `code` is None where it was ended, and `remark` says by what."""

    text: str
    code: int | None
    remark: str | None = None


class Sandbox:
    """Made by `open_sandbox`. A class, as each session has one: a generator takes 1 KB more."""

    def __init__(self, services: Services, workspace: Workspace, session_id: str, config: Config) -> None:
        self._services = services
        self._workspace = workspace
        self._session_id = session_id
        self._config = config
        self._shell: Shell | None = None
        self._scope: trio.CancelScope | None = None  # of the shell's tasks
        self._gone: trio.Event | None = None
        self._refusal: str | None = None
        self._ended_by: str | None = None  # why we ended the shell
        self._killed = 0  # processes that had to be ended
        self._entries = 0  # files and folders in the workspace when the command began
        self._frozen = False  # the workspace is over its limit: a command may delete, and write nothing
        self._asked = Again()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def run(self, command: str, *, deadline: float, show: Callable[[str], object]) -> Outcome:
        """Carry out a command in the shell; `show` is given what it prints, piece by piece, up to the bound of a result.

        Cancelled or out of time, the command is interrupted; where that does not help it is killed with its shell, all within
        `interrupt_grace` and `kill_grace`. `Refused` where there can be no sandbox.
        """
        usage = await self._usage()
        if usage.hidden:
            raise Refused(self.excess(usage) or "")
        if self._frozen is not (self.excess(usage) is not None):
            await self._end()
            self._frozen = not self._frozen
        self._entries = usage.entries
        shell = await self._started()
        self._asked.tell()
        output = Output(self._config.max_tool_result - _REMARK, show)
        call: Call | None = None
        survived = True
        try:
            with trio.move_on_after(deadline):
                call = await shell.run(command, output)
        finally:
            if call is None:
                with trio.move_on_after(self._config.interrupt_grace + self._config.kill_grace, shield=True):
                    survived = await shell.interrupt(self._config.interrupt_grace)
                    if not survived:
                        await self._end()
            shell.forget()
        await self._hold(await self._usage())  # a burst may be over before the watch looks again
        code, remark = (call.code, None) if call is not None else (None, f"ended after {deadline:g} s")
        if self._ended_by is not None:
            await self._end()
            code, remark = None, self._ended_by
        elif not survived:
            remark = f"{remark}; its shell had to be killed: variables and background processes are gone"
        elif call is not None and code is None:
            remark = "the shell has ended; the next command gets a new one"
        return Outcome(output.text(), code, remark)

    async def run_alone(self, command: str, *, deadline: float) -> Outcome:
        """Carry out a command in a sandbox of its own that can write no file; it and all it started is gone afterwards."""
        output, call, failure = Output(self._config.max_tool_result - _REMARK), None, None
        shell: Shell | None = None
        try:
            async with (
                open_shell(self._workspace.root, self._config, frozen=True) as shell,
                trio.open_nursery() as tasks,
            ):
                for task in (shell.run_output, shell.run_statuses, shell.wait_end):
                    tasks.start_soon(task)
                with trio.move_on_after(deadline):
                    call = await shell.run(command, output)
                tasks.cancel_scope.cancel()
        except* (ShellUnusable, OSError) as group:
            failure = str(first_cause(group))
        finally:
            self._killed += shell.killed if shell is not None else 0
        if failure is not None:
            raise Refused(self._refused(failure))
        return Outcome(output.text(), call.code if call is not None else None)

    async def restart(self) -> None:
        """A new shell in place of the one there is, whose processes are killed. `Refused` where there can be no sandbox."""
        await self._end()
        await self._started()

    async def close(self) -> int:
        """End it all, within `kill_grace`; how many processes of the session had to be ended, here or before. Idempotent."""
        with trio.move_on_after(self._config.kill_grace, shield=True):
            if self._shell is not None:
                await self._end()
        return self._killed

    async def _started(self) -> Shell:
        if self._shell is not None and self._shell.ended.is_set():
            await self._end()
        if self._shell is None:
            self._refusal = None
            await self._services.start(self._serve)
        if self._shell is None:
            raise Refused(self._refused(self._refusal or "it was ended"))
        return self._shell

    def _refused(self, why: str) -> str:
        log.warning("sandbox_refused", session_id=self._session_id, detail=why)
        return (
            f"no command can be run: the sandbox cannot be used here: {why}. Whoever runs footlight can install bubblewrap "
            "0.8 or newer and allow user namespaces; `footlight doctor` checks it"
        )

    def _cancel(self) -> None:
        if self._scope is not None:
            self._scope.cancel()

    async def _end(self) -> None:
        self._cancel()
        if self._gone is not None:
            await self._gone.wait()

    async def _serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        """One shell from its start to its end, whoever brings it about."""
        self._scope, self._gone = trio.CancelScope(), trio.Event()
        self._refusal = self._ended_by = None
        shell: Shell | None = None
        try:
            with self._scope:
                async with (
                    open_shell(self._workspace.root, self._config, frozen=self._frozen) as shell,
                    trio.open_nursery() as nursery,
                ):
                    self._shell = shell
                    nursery.start_soon(shell.run_output)
                    nursery.start_soon(shell.run_statuses)
                    nursery.start_soon(self._watch, shell)
                    task_status.started()
                    await shell.wait_end()
                    nursery.cancel_scope.cancel()
        except* (ShellUnusable, OSError) as group:
            self._refusal = str(first_cause(group))
        finally:
            self._killed += shell.killed if shell is not None else 0
            self._shell = None
            self._gone.set()
        if shell is None:
            task_status.started()

    async def _watch(self, shell: Shell) -> None:
        """Count the workspace for as long as something runs in it, and once more."""
        while True:
            begun, started = shell.begun, trio.current_time()
            usage = await self._usage()
            await self._hold(usage)
            if shell.calling or shell.begun > begun or usage.processes > 1:
                pause = _COUNT_SHARE * (trio.current_time() - started)
                await trio.sleep(max(self._config.quota_interval, pause))
            else:
                await self._asked.wait()

    async def _hold(self, usage: Usage) -> None:
        """End the shell with all that runs in it where the workspace has grown too large."""
        excess = self.excess(usage)
        if excess is not None and (not self._frozen or usage.entries > self._entries + _CLEANING):
            self._ended_by = f"killed with its shell: {excess}; until something is deleted, commands cannot write"
            log.warning("sandbox_over", session_id=self._session_id, detail=excess)
            self._cancel()
        await trio.lowlevel.checkpoint()

    async def _usage(self) -> Usage:
        return await trio.to_thread.run_sync(self._count, self._shell)

    def _count(self, shell: Shell | None) -> Usage:
        usage = self._workspace.usage(self._config.max_workspace_entries)
        inside = shell.inside() if shell is not None else []
        usage.processes = len(inside)
        usage.size += deleted_size(inside, self._workspace.root.stat().st_dev)
        return usage

    def excess(self, usage: Usage) -> str | None:
        """What of the workspace is beyond its limit, in words."""
        return usage.excess(self._config.workspace_limit, self._config.max_workspace_entries)

    def make_room(self, size: int) -> None:
        """`Refused` where the workspace cannot take `size` bytes more; blocking."""
        usage = self._count(None)
        usage.size += size
        if (excess := self.excess(usage)) is not None:
            raise Refused(f"{excess}: delete something first")


def open_sandbox(services: Services, workspace: Workspace, session_id: str, config: Config) -> Sandbox:
    """The sandbox of a session whose services these are. Leaving ends all that runs in it, within `kill_grace`."""
    return Sandbox(services, workspace, session_id, config)
