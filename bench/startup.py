"""From the command to `listening`: CPU, time and memory."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from tempfile import TemporaryDirectory
from typing import NamedTuple

from bench.report import Figure, Table
from bench.running import FOOTLIGHT, SERVER_CORE, cpu_seconds, options, pinned, resident_kb

_LATE = ("anthropic", "pyngrok")  # heavy, and needed by no one before there is a session
_IMPORTED = re.compile(r"import time:\s+\d+ \|\s+\d+ \|\s+(\S+)")


class Start(NamedTuple):
    """What one start took."""

    cpu: float
    wall: float
    resident_mb: float


def measure(quick: bool) -> Table:
    """`serve` until it listens, and `--help` until it has ended."""
    rounds = 3 if quick else 9
    starts = [_serve() for _ in range(rounds)]
    helps = [_help() for _ in range(rounds)]
    modules = _imported()
    late = [name for name in _LATE if any(module.split(".")[0] == name for module in modules)]
    figures = [
        Figure("serve to listening: CPU", [start.cpu for start in starts], "s", at_most=1.0),
        Figure("serve to listening: time", [start.wall for start in starts], "s"),
        Figure("serve at listening: memory (RSS)", [start.resident_mb for start in starts], "MB", at_most=60),
        Figure("serve at listening: modules imported", [len(modules)], ""),
        Figure(
            f"of {', '.join(_LATE)} imported by then{': ' if late else ''}{', '.join(late)}", [len(late)], "", at_most=0
        ),
        Figure("--help: CPU", [cpu for cpu, _ in helps], "s"),
        Figure("--help: time", [wall for _, wall in helps], "s"),
    ]
    how = "The scripted model, a local tunnel, an empty state directory, files in the page cache. The process is stopped (SIGSTOP) as soon as it says `listening`, then read."
    return Table("Start-up", how, figures)


def _command(folder: str, *flags: str) -> Sequence[str]:
    settings = options(port=0, tunnel="local", model="scripted", state_dir=folder)
    return [FOOTLIGHT[0], *flags, *FOOTLIGHT[1:], "serve", *settings]


def _serve() -> Start:
    with TemporaryDirectory(prefix="footlight-bench-") as folder, pinned(SERVER_CORE):
        began = time.perf_counter()
        process = subprocess.Popen(_command(folder), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert process.stdout is not None
        with process.stdout:
            line = process.stdout.readline()
            process.send_signal(signal.SIGSTOP)
            wall = time.perf_counter() - began
            cpu, resident = cpu_seconds(process.pid), resident_kb(process.pid)
            process.kill()
            process.wait()
    assert b"listening" in line
    return Start(cpu, wall, resident / 1024)


def _help() -> tuple[float, float]:
    with pinned(SERVER_CORE):
        began = time.perf_counter()
        process = subprocess.Popen([*FOOTLIGHT, "--help"], stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        return used.ru_utime + used.ru_stime, time.perf_counter() - began


def _imported() -> set[str]:
    """The modules that were imported when `serve` says that it listens, by the interpreter's own account."""
    found = set()
    with TemporaryDirectory(prefix="footlight-bench-") as folder:
        command = _command(folder, "-u", "-X", "importtime")
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                if "listening" in line:
                    break
                if match := _IMPORTED.match(line):
                    found.add(match[1])
            process.kill()
            process.wait()
    return found
