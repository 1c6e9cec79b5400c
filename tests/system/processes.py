"""A footlight process as a user has it: started, spoken to, signalled, looked at from outside."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import trio

FOOTLIGHT = (sys.executable, "-m", "daemon")
_READY = "footlight: listening on "


def environment(**more: str) -> dict[str, str]:
    """This one without settings and keys."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FOOTLIGHT_", "ANTHROPIC_"))}
    return {**kept, **more}


@dataclass
class Footlight:
    """A running `footlight serve`."""

    process: trio.Process
    url: str
    log: Path

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def wait(self, within: float) -> int:
        with trio.fail_after(within):
            return await self.process.wait()

    async def logged(self, line: str) -> None:
        """Wait until the log says so."""
        while line not in self.log.read_text():
            await trio.sleep(0.01)


@asynccontextmanager
async def serving(
    state_dir: Path, *args: str, command: Sequence[str] = FOOTLIGHT, **more: str
) -> AsyncIterator[Footlight]:
    """`footlight serve` with the scripted model; killed at the end if it is still there."""
    log = state_dir.parent / f"{state_dir.name}.log"
    settings = ("--port", "0", "--model", "scripted", "--tunnel", "local", "--state-dir", str(state_dir))
    with log.open("wb") as err:
        process = await trio.lowlevel.open_process(
            [*command, "serve", *settings, *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=err,
            env=environment(**more),
            start_new_session=True,
        )
    assert process.stdout is not None
    async with process.stdout:
        try:
            line = b""
            with trio.fail_after(30):
                while not line.endswith(b"\n"):
                    got = bytes(await process.stdout.receive_some())
                    assert got, log.read_text()
                    line += got
            text = line.decode()
            assert text.startswith(_READY), text
            yield Footlight(process, text.removeprefix(_READY).rstrip("\n"), log)
        finally:
            if process.returncode is None:
                process.kill()
            with trio.move_on_after(10, shield=True):
                await process.wait()


def processes_of_session(leader: int) -> list[int]:
    """The processes that a process started with a session of its own has left, itself included."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(int(entry.name))
    return found


async def refuses(port: int) -> bool:
    """Whether nobody listens there."""
    try:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
    except OSError:
        return True
    await stream.aclose()
    return False


async def start_session(client: httpx2.AsyncClient, **body: Any) -> dict[str, Any]:
    """A session whose URL answers."""
    created = (await client.post("/api/chat", json={"message": "Build a restaurant menu", **body})).json()
    view: dict[str, Any] = (
        await client.get(f"/api/sessions/{created['session_id']}", params={"wait": 20}, timeout=25)
    ).json()
    assert view["websocket_url"], view
    return view


def unsent(local_port: int, remote_port: int) -> int:
    """Bytes that a connection of this machine holds because its peer takes none (its kernel send queue)."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        ports = [int(fields[at].partition(":")[2], 16) for at in (1, 2)]
        if ports == [local_port, remote_port]:
            return int(fields[4].partition(":")[0], 16)
    return 0


async def start_long_session(client: httpx2.AsyncClient) -> dict[str, Any]:
    """A session whose history is longer than what the kernel holds for a connection: 8 MB of prompts that wait."""
    view = await start_session(client)
    for number in range(80):
        body = {"session_id": view["session_id"], "message": f"{number} " + "x" * 99_000}
        assert (await client.post("/api/chat", json=body)).status_code == 200
    return view
