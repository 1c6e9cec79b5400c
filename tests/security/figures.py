"""The figures of docs/security.md: `python -m tests.security.figures` prints them as a table, in about a minute."""

import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import trio

from tests.security.test_load import RUNAWAYS, delays, p99, raced, suffered
from tests.security.test_sandbox import NOBODY, probed, python_of_nobody
from tests.workspace.box import open_box


def probes(folder: Path) -> None:
    found = probed(folder, "bwrap")
    print(f"| probes from inside, daemon run by uid {os.geteuid()} | {len(found)} tried, {opened(found)} succeeded |")
    if os.geteuid() == 0 and shutil.which("setpriv"):
        mine = Path(tempfile.mkdtemp(prefix="footlight-nobody-"))
        os.chown(mine, 65534, 65534)
        found = probed(mine, "bwrap", user=NOBODY, python=python_of_nobody())
        shutil.rmtree(mine)
        print(f"| the same, daemon run by uid 65534 | {len(found)} tried, {opened(found)} succeeded |")


def opened(found: dict[str, str]) -> int:
    return sum(not got.startswith("refused: ") for got in found.values())


async def main() -> None:
    bwrap = subprocess.run(["bwrap", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    print(f"{platform.system()} {platform.release()}, {os.cpu_count()} cores, {bwrap}\n")
    print("| what | figure |\n| --- | --- |")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for each in ("probes", "start", "race", "load"):
            (folder / each).mkdir()
        await trio.to_thread.run_sync(probes, folder / "probes")
        async with open_box(folder / "start") as box:
            started = trio.current_time()
            await box.run("true")
            first = trio.current_time() - started
            started = trio.current_time()
            for _ in range(100):
                await box.run("true")
            print(f"| first command, with the start of its sandbox | {first * 1000:.0f} ms |")
            print(f"| each further one | {(trio.current_time() - started) * 10:.1f} ms |")
        reads, leaks = await raced(folder / "race", 10)
        print(f"| folder swapped for a symlink for 10 s | {reads} reads and writes, {leaks} led out |")
        async with open_box(folder / "load", workspace_limit=256 << 20) as box:
            print(f"| p99 delay of the daemon's loop, nothing running | {p99(await delays(4)):.1f} ms |")
            for what, command in RUNAWAYS.items():
                loaded, took = await suffered(box, command)
                print(f"| the same beside: {what} | {loaded:.1f} ms; interrupted in {took:.2f} s |")
                await box.run("rm -rf /workspace/*")


if __name__ == "__main__":
    trio.run(main)
