"""footlight and its peers as processes that follow the commands of bench/peers/__init__.py."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.load import Listeners, Taken
from bench.running import SERVER_CORE, cpu_seconds, pinned

ROOT = Path(__file__).parent.parent
PEERS = ROOT / ".venv-peers"  # made by `make peers`
_PYTHON = str(PEERS / "bin" / "python")
_COMMANDS = {
    "naive trio-websocket": [sys.executable, "-m", "bench.peers.trio_websocket"],
    "websockets": [_PYTHON, "-m", "bench.peers.websockets"],
    "aiohttp": [_PYTHON, "-m", "bench.peers.aiohttp"],
    "picows": [_PYTHON, "-m", "bench.peers.picows"],
    "uvicorn + starlette": [_PYTHON, "-m", "bench.peers.starlette"],
    "node ws": ["node", str(ROOT / "bench" / "peers" / "node.js")],
    "limit, C": [str(PEERS / "limit")],
}
NO_RIVALS = frozenset({"naive trio-websocket", "limit, C"})  # nothing that a user would pick
_NAMES = ("websockets", "aiohttp", "picows", "uvicorn", "starlette")


def peers() -> dict[str, list[str]]:
    """The peers that are here, each with its command."""
    found = {name: command for name, command in _COMMANDS.items() if shutil.which(command[0])}
    if not (PEERS / "node" / "node_modules" / "ws").exists():
        found.pop("node ws", None)
    return found


def footlight(sessions: int = 1, kind: str = "journaled") -> list[str]:
    """The command of footlight's own server; `kind` is `journaled` or `live`."""
    return [sys.executable, "-m", "bench.peers.footlight", str(sessions), kind]


def versions() -> str:
    """The peers' versions, and which of them are not here."""
    words, missing = [], [name for name in _COMMANDS if name not in peers()]
    if Path(_PYTHON).exists():
        program = f"from importlib.metadata import version as v; print(*[n + ' ' + v(n) for n in {_NAMES}], sep=', ')"
        words.append(_said([_PYTHON, "-c", program]))
    if "node ws" in peers():
        package = json.loads((PEERS / "node" / "node_modules" / "ws" / "package.json").read_text())
        words.append(f"node {_said(['node', '--version'])}, ws {package['version']}")
    if missing:
        words.append(f"not here: {', '.join(missing)} (`make peers`)")
    return ", ".join(words)


def _said(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


class Peer:
    """One server that listens. Made by `open_peer`."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.pid = process.pid
        self._stdin, self._stdout = process.stdin, process.stdout
        line = self._stdout.readline()
        if not line:
            raise RuntimeError(f"{process.args!r} did not start")
        self.doors: list[tuple[int, str]] = [(port, target) for port, target in json.loads(line)]

    def tell(self, command: str) -> None:
        """Begin what a command says."""
        self._stdin.write(f"{command}\n")
        self._stdin.flush()

    def run(self, command: str, clients: int, frames: int) -> tuple[float, Taken]:
        """The server's CPU seconds while a command gives each of that many new clients `frames` frames; what they took."""
        with Listeners(self.doors, clients) as listeners:
            listeners.settle()
            cpu = cpu_seconds(self.pid)
            self.tell(command)
            taken = listeners.take(frames)
            assert self._stdout.readline() == "done\n"
            return cpu_seconds(self.pid) - cpu, taken


@contextmanager
def open_peer(command: list[str]) -> Iterator[Peer]:
    """A server alone on its core; ended with the block."""
    environment = {**os.environ, "NODE_PATH": str(PEERS / "node" / "node_modules")}
    with pinned(SERVER_CORE):
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path.cwd(), env=environment
        )
    try:
        yield Peer(process)
    finally:
        process.kill()
        process.communicate()
