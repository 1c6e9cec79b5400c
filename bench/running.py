"""Processes under measurement: started, kept to a core, read from outside. Linux only."""

import multiprocessing
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, LOAD_CORE = CORES[0], CORES[-1]
FOOTLIGHT = [sys.executable, "-m", "daemon"]
_LISTENING = re.compile(rb"footlight: listening on (http://\S+)")


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Keep this process, and what it starts meanwhile, to one core."""
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, set(CORES))


def cpu_seconds(pid: int) -> float:
    """The CPU time of all threads of a process so far, to the nanosecond (its CPU clock, see clock_getcpuclockid(3))."""
    return time.clock_gettime((~pid << 3) | 2)


def resident_kb(pid: int) -> int:
    """What a process holds in memory, its share of libraries included (VmRSS)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0])


@dataclass(frozen=True)
class Served:
    """A `footlight serve` that listens."""

    pid: int
    url: str

    @property
    def port(self) -> int:
        """The API's."""
        return int(self.url.rpartition(":")[2])


def options(**settings: Any) -> list[str]:
    """Settings as flags of a command."""
    return [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", str(value))]


@contextmanager
def serving(**settings: Any) -> Iterator[Served]:
    """A real `footlight serve` with the scripted model at full speed, alone on its core, until the block ends."""
    with TemporaryDirectory(prefix="footlight-bench-") as folder, Path(folder, "log").open("w+b") as log:
        defaults = {"port": 0, "tunnel": "local", "model": "scripted", "script_pace": 0, "max_sessions": 1000}
        command = [*FOOTLIGHT, "serve", *options(**defaults | settings, state_dir=folder)]
        with pinned(SERVER_CORE):
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        assert process.stdout is not None
        try:
            found = _LISTENING.search(process.stdout.readline())
            if found is None:
                log.seek(0)
                raise RuntimeError(f"footlight serve did not start: {log.read().decode(errors='replace')}")
            yield Served(process.pid, found[1].decode())
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()


@contextmanager
def other_process(body: Callable[..., None], *args: Any, core: int) -> Iterator[tuple[Connection, int]]:
    """`body(connection, *args)` in a fresh interpreter on a core: our end of the connection, and its process id.

    The process is ended with the block.
    """
    ours, theirs = multiprocessing.Pipe()
    with pinned(core):
        process = multiprocessing.get_context("spawn").Process(target=body, args=(theirs, *args), daemon=True)
        process.start()
    theirs.close()
    assert process.pid is not None
    try:
        yield ours, process.pid
    finally:
        ours.close()
        process.kill()
        process.join()
        process.close()


def answer(connection: Connection, *, within: float = 60.0) -> Any:
    """The next thing that another process says; RuntimeError where it says nothing."""
    if not connection.poll(within):
        raise RuntimeError("the other process says nothing")
    return connection.recv()
