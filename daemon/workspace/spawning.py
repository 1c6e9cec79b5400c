"""Starting a shell in its sandbox, and ending all of it; Linux only.

Started by `subprocess.Popen` on Trio's own thread: the signal that follows a parent's death follows the thread that forked, and
Trio's worker threads end after ten idle seconds (D5). Everything in the sandbox is then gone with the daemon, however that ends.
"""

import fcntl
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import trio

from daemon.config import Config
from daemon.workspace import processes, seccomp
from daemon.workspace.bwrap import HOST_ENVIRONMENT, PASSWD, SHELL, Limits, arguments, environment, first_lines, prelude
from daemon.workspace.cgroup import members, open_group, remove
from daemon.workspace.printed import Printed
from daemon.workspace.shell import Shell, ShellUnusable

_PIPE = 1 << 18  # bytes of output that wait for the daemon while it looks away
_LOOK = 0.005  # s between two tries to remove a control group: version 1 does not tell when it is empty
_UNBOXED_ROUNDS = 20  # of killing what an unboxed shell left, while it forks


@asynccontextmanager
async def open_shell(folder: Path, config: Config, *, frozen: bool = False) -> AsyncIterator[Shell]:
    """A shell that has proven what it may do; `frozen`, it may write no file. `ShellUnusable` where there can be none.

    Leaving kills everything in the sandbox, cancelled or not, and waits until it is gone, `kill_grace` at most;
    `Shell.killed` then says how many processes beside the shell had to be ended, these among them.
    """
    if sys.platform != "linux":
        raise ShellUnusable("commands need Linux")
    limits = limits_of(config, frozen=frozen)
    with ExitStack() as stack:
        groups = stack.enter_context(open_group(limits))
        ends = stack.enter_context(_ends())
        shell = stack.enter_context(_spawn(folder, config, limits, groups, ends))
        try:
            await _prove(shell, limits, config)
            yield shell
        finally:
            await _end(shell, groups, config.kill_grace)


async def try_sandbox(config: Config) -> str | None:
    """Why these settings give no sandbox on this machine; None where they do."""
    with TemporaryDirectory(prefix="footlight-") as folder:
        try:
            async with open_shell(Path(folder), config):
                return None
        except (ShellUnusable, OSError) as error:
            return str(error)


def limits_of(config: Config, *, frozen: bool = False) -> Limits:
    """What one sandbox may take."""
    return Limits(
        memory=config.sandbox_memory,
        processes=config.sandbox_processes,
        file=0 if frozen else config.sandbox_file,
        tmp=config.sandbox_tmp,
        cpu=config.sandbox_cpu,
    )


@contextmanager
def _spawn(
    folder: Path, config: Config, limits: Limits, groups: list[Path], ends: tuple[int, int, int]
) -> Iterator[Shell]:
    """The process, with its descriptors; leaving gives these back and expects the process to be dead."""
    boxed = config.sandbox == "bwrap"
    statuses, status, nowhere = ends
    with ExitStack() as stack:
        stack.callback(os.close, status)  # the child's end: from its death on, ours reads the end of the pipe
        passed = [status]
        if boxed:
            filter_, passwd = (stack.enter_context(_memory(data)) for data in (_filter(), PASSWD))
            passed += [filter_, passwd]
            command = arguments(
                _bwrap(),
                folder,
                limits,
                network=config.sandbox_network,
                seccomp=filter_,
                passwd=passwd,
                root=Path("/"),
            )
        else:
            command = list(SHELL)
        process = subprocess.Popen(
            prelude(command, groups),
            env=HOST_ENVIRONMENT if boxed else environment(str(folder)),
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=passed,
            start_new_session=True,  # Ctrl+C in the daemon's terminal is for the daemon alone
        )
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin, process.stdout:
        for end in (process.stdin.fileno(), process.stdout.fileno()):
            os.set_blocking(end, False)
        with suppress(OSError):  # an ordinary user may have had too many
            fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, _PIPE)
        try:
            pidfd = os.pidfd_open(process.pid)
        except OSError:  # no descriptor is free: nobody could wait for it
            process.kill()
            process.wait()
            raise
        printed = Printed(process.stdout.fileno(), nowhere)
        shell = Shell(
            process, printed, pidfd=pidfd, statuses=statuses, status=status, boxed=boxed, pace=config.delta_window
        )
        try:
            yield shell
        finally:
            shell.closed = True
            for fd in (pidfd, process.stdin.fileno(), process.stdout.fileno()):
                trio.lowlevel.notify_closing(fd)
            os.close(pidfd)
            process.poll()


async def _prove(shell: Shell, limits: Limits, config: Config) -> None:
    """Every start is its own self-test: what the shell may do is read in there, before any command."""
    try:
        with trio.fail_after(config.shell_deadline):
            found = await shell.prove(first_lines(limits, shell.status))
    except trio.TooSlowError:
        raise ShellUnusable(f"it did not start within {config.shell_deadline:g} s") from None
    if config.sandbox == "bwrap":
        proof = (int(found.get("CapEff", "1"), 16), *(found.get(name) for name in ("NoNewPrivs", "Seccomp", "Proc")))
        if proof != (0, "1", "2", "read-only"):
            raise ShellUnusable(f"it keeps rights that it should not have: {proof}")


async def _end(shell: Shell, groups: list[Path], grace: float) -> None:
    """Kill it all. The first process of a namespace takes the others with it, and ends only after them."""
    inside = shell.inside()
    shell.killed += max(0, len(inside) - 1)
    first = processes.descendants(shell.process.pid)[:1]
    with ExitStack() as stack:
        waited = []
        for pid in (shell.process.pid, *first):
            with suppress(OSError):
                waited.append(os.pidfd_open(pid))
                stack.callback(os.close, waited[-1])
        for _ in range(_UNBOXED_ROUNDS):
            left = [*processes.descendants(shell.process.pid), *members(groups)]
            processes.kill(left)
            if shell.boxed or not left:
                break
        shell.process.kill()
        with trio.move_on_after(grace, shield=True):
            for pidfd in waited:
                await trio.lowlevel.wait_readable(pidfd)
            while not remove(groups):  # noqa: ASYNC110  # nothing tells
                await trio.sleep(_LOOK)


def _bwrap() -> str:
    found = shutil.which("bwrap")
    if found is None:
        raise ShellUnusable("bubblewrap is not installed")
    return found


def _filter() -> bytes:
    program = seccomp.program()
    if program is None:
        raise ShellUnusable(f"its system call filter does not know {platform.machine()}")
    return program


@contextmanager
def _ends() -> Iterator[tuple[int, int, int]]:
    """A pipe for exit codes, whose writing end `_spawn` closes, as it is the child's, and an open /dev/null."""
    with Path(os.devnull).open("wb") as nowhere:
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        try:
            yield reading, writing, nowhere.fileno()
        finally:
            os.close(reading)


@contextmanager
def _memory(data: bytes) -> Iterator[int]:
    """A descriptor that holds these bytes."""
    fd = os.memfd_create("footlight")
    try:
        os.write(fd, data)
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)
