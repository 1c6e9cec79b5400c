"""kill -9, again and again: what was written is there, in the same epoch, and nothing is half there."""

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.journal.history import held, opened

KILLS = 40
LIMIT = 1 << 30
WRITER = """
import os, sys
from pathlib import Path
from daemon.journal.journal import load_journal

journal, recovery = load_journal("s", Path(sys.argv[1]), limit=int(sys.argv[2]), writable=True)
while True:
    offset = journal.offset + 1
    assert journal.append("files_changed", paths=[f"{offset}:" + "x" * (offset * 7919 % 5000)]) == offset
    os.write(1, b"%d\\n" % offset)
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
