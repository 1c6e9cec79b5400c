"""Probes in a sandbox of whoever runs this: `python -m tests.security.probing FOLDER bwrap|none [NAME ...]` prints what came of each.

A module of its own, as it is also run as an ordinary user, in a process of its own.
"""

import json
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import trio

from tests.workspace.box import open_box

SECRET = "canary-7f3a"
PROCESS = "271828"  # an argument of a process of the host
HERE = Path(__file__).parent
ROOT = HERE.parent.parent


@contextmanager
def host(folder: Path) -> Iterator[dict[str, Any]]:
    """What the attacker is after, and is told of."""
    os.environ["ANTHROPIC_API_KEY"] = SECRET
    with ExitStack() as stack:

        def listen(family: int, kind: int, address: Any) -> socket.socket:
            one = stack.enter_context(socket.socket(family, kind))
            one.bind(address)
            if kind == socket.SOCK_STREAM:
                one.listen()
            return one

        abstract = f"footlight-{os.getpid()}"
        tcp = listen(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0))
        tcp6 = listen(socket.AF_INET6, socket.SOCK_STREAM, ("::1", 0)) if socket.has_ipv6 else tcp
        udp = listen(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0))
        listen(socket.AF_UNIX, socket.SOCK_STREAM, f"\0{abstract}")
        listen(socket.AF_UNIX, socket.SOCK_STREAM, str(folder / "socket"))
        (folder / "secret.txt").write_text(SECRET)
        process = stack.enter_context(subprocess.Popen(["sleep", PROCESS], env={"KEY": SECRET}))
        stack.callback(process.kill)
        yield {
            "tcp": tcp.getsockname()[1],
            "tcp6": tcp6.getsockname()[1],
            "udp": udp.getsockname()[1],
            "abstract": abstract,
            "unix": str(folder / "socket"),
            "file": str(folder / "secret.txt"),
            "state": str(folder),
            "process": PROCESS,
            "secret": SECRET,
            "pid": process.pid,
        }


async def probe(folder: Path, sandbox: str, *names: str) -> dict[str, str]:
    """What came of each probe."""
    with host(folder) as facts:
        async with open_box(folder, sandbox=sandbox) as box:
            box.workspace.write("probes.py", (HERE / "probes.py").read_bytes())
            words = ["/usr/bin/python3", "probes.py", json.dumps(facts), *names]
            outcome = await box.run(shlex.join(words), deadline=50)
    lines = [line.partition(" ") for line in outcome.text.splitlines()]
    assert outcome.code == 0, outcome
    return {name: got for name, _, got in lines}


if __name__ == "__main__":
    print(json.dumps(trio.run(probe, Path(sys.argv[1]), *sys.argv[2:])))
