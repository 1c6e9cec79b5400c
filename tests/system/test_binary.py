"""dist/footlight where there is nothing else: no Python, no shell, only glibc and what the kernel gives."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from daemon import __version__
from daemon.clients.follow import open_client
from tests.support import api, events_until
from tests.system.processes import environment, processes_of_session, refuses, serving, start_session

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the bare root is made of Linux namespaces"),
]
BINARY = Path(__file__).parents[2] / "dist" / "footlight"
# What every Linux with glibc has; the binary brings all the rest.
_LIBRARIES = ("libc.so.6", "libdl.so.2", "libm.so.6", "libpthread.so.0", "librt.so.1", "libutil.so.1", "libz.so.1")


def _wanted(path: Path) -> dict[str, Path]:
    """The libraries and the loader that a program is started with, by name."""
    listed = subprocess.run(["ldd", str(path)], capture_output=True, text=True, check=True).stdout
    paths = [Path(word) for word in listed.split() if word.startswith("/")]
    return {path.name: path for path in paths}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command that runs the binary in a root of its own."""
    if not BINARY.exists():
        pytest.fail("there is no dist/footlight: run `make binary`", pytrace=False)
    if not shutil.which("bwrap"):
        pytest.fail("footlight needs: apt install bubblewrap", pytrace=False)
    root = tmp_path_factory.mktemp("root")
    found = _wanted(BINARY)
    folder = found["libc.so.6"].parent
    for path in {*found.values(), *(folder / name for name in _LIBRARIES if (folder / name).exists())}:
        inside = root / path.relative_to("/")
        inside.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path.resolve(), inside)
    for name in ("proc", "dev", "tmp"):
        (root / name).mkdir()
    shutil.copy(BINARY, root / "footlight")
    there = {path.name for path in root.rglob("*") if not path.is_dir()}
    assert not [name for name in there if "python" in name.lower()]
    assert there - {*_LIBRARIES, "footlight"} == {name for name in there if name.startswith("ld-")}
    places = ["--ro-bind", str(root), "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
    return [
        "bwrap",
        *places,
        "--clearenv",
        "--setenv",
        "HOME",
        "/tmp",
        "--chdir",
        "/tmp",
        "--die-with-parent",
        "/footlight",
    ]


def _run(command: list[str]) -> str:
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment(), check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout


def test_binary_alone_knows_its_version(bare):
    assert _run([*bare, "--version"]) == f"footlight {__version__}\n"


def test_binary_alone_has_the_help_of_every_setting(bare):
    assert "--session-timeout" in _run([*bare, "serve", "--help"])


def test_binary_alone_plays_the_demo(bare):
    lines = _run([*bare, "demo", "--once", "--script-pace", "0"]).splitlines()
    assert len([line for line in lines if line.startswith(("http://127.0.0.1:", "ws://127.0.0.1:"))]) == 4
    assert "  3 page(s):" in lines
    assert lines[-1].startswith("  ✓ turn 1: end_turn")


def test_binary_alone_refuses_wrong_usage_in_one_line(bare):
    ran = subprocess.run([*bare, "serve", "--prot", "1"], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 2
    assert ran.stderr.startswith("footlight: ")
    assert ran.stderr.count("\n") == 1


async def test_binary_alone_serves_a_session_and_ends(bare, tmp_path):
    state = tmp_path / "state"
    state.mkdir()
    seen_inside = [*bare[:-1], "--bind", str(tmp_path), str(tmp_path), *bare[-1:]]
    with trio.fail_after(120):
        async with serving(state, "--script-pace", "0", command=seen_inside) as footlight, api(footlight.url) as client:
            view = await start_session(client)
            async with open_client(view["websocket_url"]) as ws:
                events = await events_until(ws, lambda event: event["event"] == "ready_for_input")
            assert {"claude_text", "files_changed", "pages_discovered"} <= {event["event"] for event in events}
            assert (await client.get("/openapi.json")).status_code == 200
            assert (await client.get("/metrics")).status_code == 200
            os.kill(_first(footlight.process.pid, lambda name: name == "/footlight"), signal.SIGTERM)
            assert await footlight.wait(10) == 0, footlight.log.read_text()


def _first(pid: int, named: Callable[[str], bool]) -> int:
    """The uppermost process below another one that has such a name."""
    below = [pid]
    for process in below:
        if named(Path(f"/proc/{process}/cmdline").read_text().partition("\0")[0]):
            return process
        below += map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split())
    raise AssertionError("not found")


# --- the launcher, which unpacks the binary and waits, is nothing that a user need know of


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
async def test_signal_to_the_whole_group_is_one_signal(tmp_path, number, code):
    """A terminal and a supervisor signal the launcher and the daemon; the launcher passes its own on."""
    with trio.fail_after(60):
        async with serving(tmp_path / "state", command=[str(BINARY)]) as footlight:
            os.killpg(footlight.process.pid, number)
            assert await footlight.wait(15) == code


@pytest.mark.usefixtures("bare")
async def test_killed_binary_leaves_no_daemon(tmp_path):
    with trio.fail_after(60):
        async with serving(tmp_path / "state", command=[str(BINARY)]) as footlight:
            footlight.process.kill()
            await footlight.wait(5)
            while processes_of_session(footlight.process.pid) or not await refuses(footlight.port):
                await trio.sleep(0.01)
        async with serving(tmp_path / "state", command=[str(BINARY)]):
            pass  # the state directory is free
