"""An agent that ends when we do, however we end, and one that an earlier crash left behind.

The agent is started by a small script that waits, in a second process of the same process group, on a pipe whose other end only
this process holds. When this process is gone, even by SIGKILL, the kernel closes that end and the group is told to go.
PR_SET_PDEATHSIG cannot do it: its signal fires when the *thread* that forked ends (docs/design.md, D5).
"""

import os
import shlex
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import trio

_GONE_POLL = 0.02  # s
_SCRIPT = """\
#!/bin/sh
# Runs ngrok for footlight; ends it when the footlight that started it is gone.
exec 3<{pipe} </dev/null
(
  trap '' TERM
  exec >/dev/null 2>&1
  read -r _ <&3
  kill -TERM 0
  sleep 2
  kill -KILL 0
) &
exec 3<&- {ngrok} "$@" 2>&1
"""


class Leash:
    """Made by `open_leash`."""

    def __init__(self, folder: Path, binary: Path) -> None:
        self.script = folder / "run"  # stands in for the ngrok binary
        self.config = folder / "ngrok.yml"  # its path in a command line tells our agents from all others
        self._pipe = folder / "alive"
        self.binary = binary

    def prepare(self) -> int:
        """Write the script and hold the pipe's end; the descriptor is the caller's."""
        self._pipe.unlink(missing_ok=True)
        os.mkfifo(self._pipe, 0o600)
        self.script.write_text(_SCRIPT.format(pipe=shlex.quote(str(self._pipe)), ngrok=shlex.quote(str(self.binary))))
        self.script.chmod(0o700)
        return os.open(self._pipe, os.O_RDWR | os.O_CLOEXEC)  # for writing alone it would wait for a reader

    def running(self, *, watchers: bool = True) -> set[int]:
        """The processes of our agent and its watcher, also those of an earlier daemon with the same state directory."""
        config, script = str(self.config), str(self.script)
        return {pid for pid, words in _commands() if config in words and (watchers or script not in words)}

    def signal(self, number: int) -> None:
        """Send a signal to whatever runs."""
        for pid in self.running():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)

    async def end(self, grace: float) -> int:
        """End whatever runs: asked to, and by force after `grace` seconds. How many processes there were.

        Cancelled, it goes on to force at once. A process that is ours to reap may remain a zombie until it is reaped.
        """
        running = self.running()
        if not running:
            return 0
        try:
            self.signal(signal.SIGTERM)
            self.signal(signal.SIGCONT)  # a stopped process takes its SIGTERM when it goes on
            with trio.move_on_after(grace):
                while self.running(watchers=False):  # noqa: ASYNC110
                    await trio.sleep(_GONE_POLL)  # an orphan is nobody's child to wait for
        finally:
            self.signal(signal.SIGKILL)
        return len(running)


@contextmanager
def open_leash(folder: Path, binary: Path) -> Iterator[Leash]:
    """The script to start agents with. Leaving ends by force what still runs."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    leash = Leash(folder, binary)
    fd = leash.prepare()
    try:
        yield leash
    finally:
        leash.signal(signal.SIGKILL)
        os.close(fd)


def _commands() -> Iterator[tuple[int, list[str]]]:
    """Every process with its command line; zombies have none."""
    if Path("/proc/self/cmdline").exists():
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with suppress(OSError):  # it has just ended, or hides
                    yield int(entry.name), (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        return
    listing = subprocess.run(["/bin/ps", "-axo", "pid=,command="], env={}, capture_output=True, text=True, check=False)
    for line in listing.stdout.splitlines():
        pid, _, command = line.strip().partition(" ")
        yield int(pid), shlex.split(command, posix=False)
