"""Taking what a shell prints from its pipe."""

import fcntl
import os

import pytest

from daemon.workspace.output import TRUNCATED, Output
from daemon.workspace.printed import READ, Printed
from tests.support import descriptors


class Counted(Output):
    """How much was copied for it is in `copied`."""

    copied = 0

    def feed(self, data: bytes) -> None:
        self.copied += len(data)
        super().feed(data)


@pytest.fixture
def pipe():
    before = descriptors()
    reading, writing = os.pipe()
    for end in (reading, writing):
        os.set_blocking(end, False)
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 1 << 18)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    ends = {reading, writing}
    try:
        yield Printed(reading, nowhere), writing, ends
    finally:
        for fd in (*ends, nowhere):
            os.close(fd)
        assert descriptors() == before


def test_output_is_taken_piece_by_piece_until_its_end(pipe):
    printed, writing, ends = pipe
    output = Output(1 << 20)
    assert printed.take(output) == 0
    os.write(writing, b"one")
    assert (printed.waiting(), printed.take(output), printed.take(output)) == (3, 3, 0)
    os.write(writing, b"x" * (READ + 1))
    assert (printed.take(output), printed.take(output)) == (READ, 1)
    ends.remove(writing)
    os.close(writing)
    assert printed.take(output) is None
    assert output.text() == "one" + "x" * (READ + 1)


def test_flood_is_counted_and_only_its_end_is_copied(pipe):
    printed, writing, _ = pipe
    output = Counted(400)
    for number in range(100):
        os.write(writing, b"%05d" % number * 40_000)
        printed.take_waiting(output)
    assert printed.waiting() == 0
    assert output.size == 100 * 200_000
    assert output.copied < READ + 200_000 + 99 * 100
    assert output.text() == "00000" * 60 + TRUNCATED.format(size=output.size) + "00099" * 20


def test_what_is_waiting_is_taken_though_it_is_more_than_one_read(pipe):
    printed, writing, _ = pipe
    output = Output(1 << 20)
    os.write(writing, b"y" * (3 * READ + 7))
    printed.take_waiting(output)
    assert output.text() == "y" * (3 * READ + 7)


def test_end_is_whole_when_it_is_longer_than_one_read(pipe):
    printed, writing, _ = pipe
    output = Output(4 * (READ + 5000))
    os.write(writing, b"a" * 200_000)
    printed.take_waiting(output)
    for letter in (b"b", b"c"):
        os.write(writing, letter * 200_000)
        printed.take_waiting(output)
    assert output.text().endswith("c" * (READ + 5000))
    assert "b" not in output.text()[-READ - 5000 :]
