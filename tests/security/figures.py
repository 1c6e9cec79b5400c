"""The figures of docs/security.md: `python -m tests.security.figures` prints them as a table, in about four minutes."""

import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path
from statistics import median

import trio

from tests.security.test_load import RUNAWAYS, delays, p99, raced, suffered
from tests.security.test_sandbox import NOBODY, probed, python_of_nobody
from tests.workspace.box import open_box

_ROUNDS = 5  # of each runaway, and before each of nothing
_SECONDS = 4.0


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
        print("\n| p99 delay of the loop beside | before | during | ratio | interrupted in |")
        print("| --- | --- | --- | --- | --- |")
        for number, (what, command) in enumerate(RUNAWAYS.items()):
            print(f"| {what} | {await beside(command, folder / 'load' / str(number))} |")


async def beside(command: str, folder: Path) -> str:
    """What a runaway costs the others: medians of the rounds."""
    rounds = []
    folder.mkdir()
    async with open_box(folder, workspace_limit=256 << 20) as box:
        for _ in range(_ROUNDS):
            quiet = p99(await delays(_SECONDS))
            rounds.append((quiet, *await suffered(box, command, _SECONDS)))
            await box.run("rm -rf /workspace/*")
    quiet, loaded, took = map(median, zip(*rounds, strict=True))
    ratio = median(loaded / quiet for quiet, loaded, _ in rounds)
    return f"{quiet:.2f} ms | {loaded:.2f} ms | {ratio:.1f}x | {took:.2f} s"


if __name__ == "__main__":
    trio.run(main)
