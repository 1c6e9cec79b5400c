"""One persistent shell: commands go in one by one, what they print and their exit codes come out.

The shell is bash, interactive without a terminal: its working directory and variables outlive a command, SIGINT ends the
command and not the shell, and background processes, which it starts ignoring SIGINT, go on. Each command is one quoted word for
`eval`, so that no unfinished quote or here-document can swallow what follows; its exit code comes back on a pipe of its own.
"""

import os
import subprocess
from dataclasses import dataclass

import trio

from daemon.errors import Bug
from daemon.workspace import processes
from daemon.workspace.output import Output
from daemon.workspace.printed import Printed

_AGAIN = 0.1  # s between two interrupts of one command: a process that was just being started has not heard the first
_FLOOD_PACE = 0.01  # s between two looks at what is shown to nobody: 26 MB/s, for 1 % of the daemon's time
_DIGITS = 3  # of an exit code
_STRAY = 16 * 1024  # bytes kept of what background processes print between two commands
_PROOF = 64 * 1024  # bytes at most of what the shell proves about itself


class ShellUnusable(Exception):
    """The shell could not be started; the text says why."""


@dataclass
class Call:
    """A command under way."""

    number: int
    output: Output
    done: trio.Event
    code: int | None = None  # None: the shell ended before it could say


class Shell:
    """Made by `open_shell`. Whoever opens it runs its `run_output`, `run_statuses` and `wait_end` as tasks, once it is proven.

    `statuses` is the end of a pipe that exit codes are read from, `status` the number of its other end in the shell.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        printed: Printed,
        *,
        pidfd: int,
        statuses: int,
        status: int,
        boxed: bool,
        pace: float,
    ) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self.boxed = boxed  # whether process 1 of a namespace stands between the process and its shell
        self.killed = 0  # processes beside the shell that had to be ended: interrupted, or killed with it
        self.ended = trio.Event()
        self.closed = False  # its descriptors are not its own any more
        self._pidfd = pidfd
        self._commands = process.stdin.fileno()
        self._output = process.stdout.fileno()
        self._printed = printed
        self._statuses = statuses
        self.status = status
        self._pace = pace
        self._call: Call | None = None
        self.begun = 0  # commands
        self._stray = Output(_STRAY)  # what is printed between two commands

    # --- its tasks

    async def run_output(self) -> None:
        """Read what is printed, also between commands: a background process must not stand still for want of a reader."""
        taken: int | None = 0
        while taken is not None:
            if taken:
                await trio.sleep(_FLOOD_PACE if self._sink.full else self._pace)
            else:
                await trio.lowlevel.wait_readable(self._output)
            taken = self._printed.take(self._sink)

    async def run_statuses(self) -> None:
        """Read exit codes: the command that it belongs to is done."""
        buffered = b""
        while True:
            await trio.lowlevel.wait_readable(self._statuses)
            data = os.read(self._statuses, _PROOF)
            if not data:
                return
            *lines, buffered = (buffered + data)[-_PROOF:].split(b"\n")
            for line in lines:
                number, _, code = line.partition(b" ")
                mine = self._call is not None and number == b"%d" % self._call.number
                if (
                    self._call is not None and mine and code.isdigit() and len(code) <= _DIGITS
                ):  # anyone in there may write
                    self._call.code = int(code)
                    self._call.done.set()

    async def wait_end(self) -> None:
        """Wait until it is gone, whyever."""
        try:
            await trio.lowlevel.wait_readable(self._pidfd)
        finally:
            self.ended.set()
            if self._call is not None:
                self._call.done.set()

    # --- what is asked of it

    async def prove(self, lines: bytes) -> dict[str, str]:
        """Send the first lines; what /proc/self/status says in there. `ShellUnusable` where it ended instead."""
        await self._send(lines)
        said = b""
        while not said.endswith(b"\n0 0\n"):
            await trio.lowlevel.wait_readable(self._statuses)
            data = os.read(self._statuses, _PROOF)
            said += data
            if not data or len(said) > _PROOF:
                self._take()
                raise ShellUnusable(self._stray.text().strip() or "it ended at once")
        self._take()
        self._stray = Output(_STRAY)  # bash says that it has no terminal
        pairs = (line.partition(":") for line in said.decode(errors="replace").splitlines())
        return {name: value.strip() for name, _, value in pairs}

    async def run(self, command: str, output: Output) -> Call:
        """Carry out a command. Cancelled, it may go on: `interrupt` it."""
        if self._call is not None:
            raise Bug("a shell carries out one command at a time")
        self.begun += 1
        call = self._call = Call(self.begun, output, trio.Event())
        before, self._stray = self._stray, Output(_STRAY)
        if before.size:
            output.feed(before.text().encode())
        quoted = command.replace("'", "'\\''").encode()
        await self._send(b"eval '%s' </dev/null\nprintf '%d %%d\\n' $? >&%d\n" % (quoted, call.number, self.status))
        await call.done.wait()
        self._take()  # all that the command printed is in the pipe by now
        return call

    def forget(self) -> None:
        """No command is under way any more; what is printed from now on belongs to the next one."""
        self._call = None

    async def interrupt(self, grace: float) -> bool:
        """End the command under way as Ctrl+C would; whether that, and the shell, could be had within the grace.

        An interrupt may hit the shell between two commands, where it drops the line that it was about to read: each line
        is sent again until one is answered, and then a last one to be sure that no interrupt is still to be noticed.
        """
        call, settled = self._call, False
        if call is None:
            return True
        running = {*self.inside()[1:]}
        try:
            with trio.move_on_after(grace):
                while not call.done.is_set():
                    processes.interrupt(self.inside())
                    await self._ask(call)
                self._take()
                self.begun += 1
                self._call = last = Call(self.begun, call.output, trio.Event())
                while not last.done.is_set():
                    await self._ask(last)
                settled = True
        finally:
            self.killed += len(running - {*self.inside()})
        return settled and not self.ended.is_set()

    async def _ask(self, call: Call) -> None:
        """Have the shell say that a call is done, as soon as it hears."""
        await self._send(b"printf '%d 130\\n' >&%d\n" % (call.number, self.status))
        with trio.move_on_after(_AGAIN):
            await call.done.wait()

    def inside(self) -> list[int]:
        """The processes of the shell: itself first, then what it has started; blocking, 0.1 ms for each."""
        if not self.boxed:
            return [self.process.pid, *processes.descendants(self.process.pid)]
        return processes.descendants(self.process.pid)[1:]

    @property
    def calling(self) -> bool:
        """Whether a command is under way."""
        return self._call is not None

    @property
    def _sink(self) -> Output:
        return self._call.output if self._call is not None else self._stray

    def _take(self) -> None:
        if not self.closed:
            self._printed.take_waiting(self._sink)

    async def _send(self, data: bytes) -> None:
        while data and not self.ended.is_set():
            try:
                await trio.lowlevel.wait_writable(self._commands)
                data = data[os.write(self._commands, data) :]
            except (BrokenPipeError, trio.ClosedResourceError):
                return  # it has ended; `wait_end` says so
