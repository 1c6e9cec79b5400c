"""What a hostile or runaway session costs the others: contained, and how long they wait."""

import contextlib
import time
from statistics import quantiles

import pytest
import trio

from daemon.workspace.files import Refused
from tests.workspace.box import Box, open_box

RUNAWAYS = {
    "yes": "yes",
    "1 GB of output": "head -c 1000000000 /dev/zero | tr '\\\\0' x",
    "fork bomb": "bomb() { bomb | bomb & }; bomb; sleep 1000",
    "full quota": "while :; do head -c 400M /dev/zero > big$RANDOM; done",
    "full /tmp": "head -c 10G /dev/zero > /tmp/big; head -c 10G /dev/zero > /dev/shm/big; sleep 1000",
    "memory": "python3 -c 'import os\nwhile True: os.fork() or bytearray(1 << 29)'",
    "processor": "for i in $(seq 50); do while :; do :; done & done; wait",
}
OF_THE_KERNEL = ("memory",)  # where it does not let go of a core for milliseconds
_SECONDS = 4.0
_TRIES = 5  # the machine has other things to do now and then
SLIPS = """
import os
while True:
    os.rename("d", "real"); os.symlink(TARGET, "d"); os.unlink("d"); os.rename("real", "d")
"""


async def delays(seconds: float) -> list[float]:
    """How much later than asked for the daemon's own loop comes round, in ms: what every other session waits."""
    found = []
    end = trio.current_time() + seconds
    while trio.current_time() < end:
        started = time.perf_counter()
        await trio.sleep(0.002)
        found.append((time.perf_counter() - started) * 1000 - 2)
    return found


def p99(found: list[float]) -> float:
    return quantiles(found, n=100)[98]


async def suffered(box: Box, command: str, seconds: float = _SECONDS) -> tuple[float, float]:
    """The p99 delay while a command runs away, and how long its end took."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(box.run, command, 1000)
        found = await delays(seconds)
        started = trio.current_time()
        nursery.cancel_scope.cancel()
    return p99(found), trio.current_time() - started


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNAWAYS)
async def test_runaway_is_contained_and_ended_within_a_second(tmp_path, name):
    async with open_box(tmp_path, workspace_limit=256 << 20) as box:
        for _ in range(_TRIES):
            quiet = p99(await delays(_SECONDS))
            loaded, took = await suffered(box, RUNAWAYS[name])
            if loaded <= 2 * quiet or name in OF_THE_KERNEL:
                break
            await box.run("rm -rf /workspace/*")
        assert took < 1.5  # a machine that runs other tests at the same time is given half a second
        assert loaded <= (max(2 * quiet, 10) if name in OF_THE_KERNEL else 2 * quiet), (loaded, quiet)
        assert box.workspace.usage(100_000).size < (256 << 20) + 1500 * (1 << 20)
        text = (await box.run("echo on")).text
        assert "on\n" in text if name == "fork bomb" else text.endswith("on\n")  # its remains may print behind it


@pytest.mark.slow
async def test_command_lives_longer_than_a_worker_thread(tmp_path):
    async with open_box(tmp_path) as box:
        outcome = await box.run("sleep 15; echo lives", deadline=30)
        assert (outcome.code, outcome.text) == (0, "lives\n")


async def raced(tmp_path, seconds: float) -> tuple[int, int]:
    """A folder that is swapped for a symlink to the outside, as fast as may be, while its file is read and written by the daemon."""
    secret = tmp_path / "outside"
    secret.mkdir()
    (secret / "file").write_bytes(b"secret")
    reads = leaks = 0

    def attack() -> None:
        nonlocal reads, leaks
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            reads += 2
            with contextlib.suppress(Refused):
                leaks += box.workspace.read("d/file") == b"secret"
            with contextlib.suppress(Refused):
                box.workspace.write("d/new", b"written")

    async with open_box(tmp_path) as box:
        box.workspace.write("d/file", b"harmless")
        box.workspace.write("slip.py", SLIPS.replace("TARGET", repr(str(secret))).encode())
        await box.run("/usr/bin/python3 slip.py &")
        await trio.to_thread.run_sync(attack)
    leaks += (secret / "new").exists()
    return reads, leaks


@pytest.mark.parametrize("seconds", [0.5, pytest.param(10, marks=pytest.mark.slow)])
async def test_folder_swapped_for_a_symlink_from_inside_never_leads_out(tmp_path, seconds):
    reads, leaks = await raced(tmp_path, seconds)
    assert leaks == 0
    assert reads > 100
