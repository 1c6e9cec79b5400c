"""kill -9, again and again: what was written is there, in the same epoch, and nothing is half there."""

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.journal.journal import Gap
from tests.journal.history import file_of, held, note, opened, texts

KILLS = 40
LIMIT = 1 << 30
WRITER = """
import os, sys
from contextlib import nullcontext
from pathlib import Path
from daemon.journal.journal import load_journal

journal, recovery = load_journal("s", Path(sys.argv[1]), limit=int(sys.argv[2]), writable=True)
while True:
    with journal.together() if journal.offset % 2 else nullcontext():
        for _ in range(journal.offset % 5 + 1):
            offset = journal.offset + 1
            assert journal.append("files_changed", paths=[f"{offset}:" + "x" * (offset * 7919 % 5000)]) == offset
    os.write(1, b"%d\\n" % offset)
"""

OPENER = """
import os, shutil, signal, sys
from pathlib import Path
from daemon.journal.journal import load_journal

def kill_at(step):
    left = step
    def hook(event, args):
        nonlocal left
        if event == "open" or event.startswith("os."):
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

damaged, folder, step, status = Path(sys.argv[1]), Path(sys.argv[2]), 0, -1
while status:
    step += 1
    shutil.copytree(damaged, folder / str(step))
    child = os.fork()
    if not child:
        kill_at(step)
        load_journal("s", folder / str(step), limit=1 << 20, writable=True)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL), status
"""


def told_until_killed(folder: Path, limit: int, lines: int) -> int:
    """The last offset that a writer told of before it was killed; it is killed while it goes on."""
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(folder), str(limit)], stdout=subprocess.PIPE)
    try:
        told = b"".join(writer.stdout.readline() for _ in range(lines))
        writer.send_signal(signal.SIGKILL)
        told += writer.stdout.read()
    finally:
        writer.kill()
        writer.stdout.close()
        assert writer.wait(10) == -signal.SIGKILL
    return int(told.split(b"\n")[-2])  # a last line without its end is not told


def check(folder: Path, limit: int, told: int) -> None:
    with opened(folder, limit=limit) as (journal, _):
        found = held(journal, journal.first - 1)
        assert journal.offset >= told
        assert [event["offset"] for event in found] == list(range(journal.first, journal.offset + 1))
        for event in found:
            offset = event["offset"]
            assert event["data"]["paths"] == [f"{offset}:" + "x" * (offset * 7919 % 5000)]


def test_epoch_changes_and_the_rest_is_kept_when_opening_is_killed_at_any_step(tmp_path):
    """At every call that opens, cuts or renames a file, while the end of a journal is cut off and its index repaired."""
    damaged, tries = tmp_path / "damaged", tmp_path / "tries"
    with opened(damaged) as (journal, _):
        epoch = journal.epoch
        for word in ("one", "two", "three", "four"):
            note(journal, word)
        size = len(journal.read(0, max_events=1).data)
    frames = file_of(damaged, 1, "frames")
    data = bytearray(frames.read_bytes()[:-1])
    data[size + 20] ^= 1  # the second event
    frames.write_bytes(data)
    subprocess.run([sys.executable, "-c", OPENER, str(damaged), str(tries)], check=True, timeout=60)
    folders = list(tries.iterdir())
    assert len(folders) > 6
    for folder in folders:
        with opened(folder) as (journal, _):
            assert texts(held(journal)) == ["one", Gap(2, 2), "three"]
            assert journal.epoch != epoch


@pytest.mark.slow
@pytest.mark.parametrize("limit", [LIMIT, 1 << 18])
def test_everything_told_of_is_there_when_the_writer_is_killed(tmp_path, limit):
    """With one segment, and with segments that begin and go all the time."""
    rng = random.Random(limit)
    with opened(tmp_path, limit=limit) as (journal, _):
        epoch = journal.epoch
    last = 0
    for _ in range(KILLS):
        told = told_until_killed(tmp_path, limit, 1 + int(rng.expovariate(1 / 150)))
        assert told > last
        check(tmp_path, limit, told)
        assert [entry.name for entry in tmp_path.iterdir()] == [epoch]
        last = told
