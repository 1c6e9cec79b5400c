"""`footlight demo` and the first line of `serve`, as a person or a script meets them."""

import fcntl
import os
import pty
import re
import signal
import subprocess
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest
import trio

from tests.support import api
from tests.system.processes import FOOTLIGHT, environment, processes_of_session, refuses, serving

_ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


async def test_serve_says_where_it_listens_and_answers_at_that_moment(tmp_path):
    with trio.fail_after(60):
        async with serving(tmp_path / "state") as footlight:
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+", footlight.url)  # `serving` has read the whole line
            async with api(footlight.url) as client:
                assert (await client.get("/health")).status_code == 200
            footlight.process.send_signal(signal.SIGTERM)
            assert await footlight.process.stdout.receive_some() == b""  # nothing else on stdout


async def demo(*args: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    command = [*FOOTLIGHT, "demo", "--once", "--script-pace", "0", *args]
    with trio.fail_after(60):
        return await trio.run_process(
            command, capture_stdout=True, capture_stderr=True, check=False, env=environment(**variables)
        )


async def test_demo_that_is_piped_builds_the_site_and_ends():
    ran = await demo()
    assert (ran.returncode, ran.stderr) == (0, b"")
    lines = ran.stdout.decode().splitlines()
    urls = [line for line in lines if line.startswith(("http://127.0.0.1:", "ws://127.0.0.1:"))]
    assert [urlsplit(url).scheme for url in urls] == ["http", "ws", "ws", "http"]
    assert not [line for line in lines if "://" in line and line not in urls]  # URLs stand alone
    assert "\x1b" not in ran.stdout.decode()
    assert "  ● write index.html  7.2 kB" in lines
    assert "  3 page(s):" in lines
    assert lines[-1].startswith("  ✓ turn 1: end_turn after ")
    for url in urls:
        assert await refuses(urlsplit(url).port)


@pytest.mark.slow
async def test_demo_survives_a_terminal_without_unicode():
    ran = await demo(PYTHONIOENCODING="ascii")
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert b"? turn 1: end_turn" in ran.stdout


async def test_demo_whose_reader_leaves_ends_without_a_traceback():
    reading, writing = os.pipe()
    os.close(reading)
    with trio.fail_after(60), os.fdopen(writing, "wb") as out:
        ran = await trio.run_process(
            [*FOOTLIGHT, "demo", "--script-pace", "0"], stdout=out, capture_stderr=True, check=False, env=environment()
        )
    assert (ran.returncode, ran.stderr) == (1, b"")


class Terminal:
    """A process on a terminal of its own, and what it has shown."""

    def __init__(self, process: trio.Process, stream: trio.lowlevel.FdStream) -> None:
        self.process = process
        self.shown = ""
        self._stream = stream

    async def shows(self, text: str) -> None:
        while text not in self.shown:
            self.shown += (await self._stream.receive_some()).decode()

    async def press_ctrl_c(self) -> None:
        await self._stream.send_all(b"\x03")


@asynccontextmanager
async def on_terminal(*args: str) -> AsyncIterator[Terminal]:
    """The demo on a pseudo-terminal that controls its session, as a shell gives it."""
    mine, its = pty.openpty()
    async with trio.lowlevel.FdStream(mine) as stream:
        try:
            fcntl.ioctl(its, termios.TIOCSWINSZ, b"\x18\x00\x50\x00\x00\x00\x00\x00")  # 24 lines of 80 characters
            process = await trio.lowlevel.open_process(
                [*FOOTLIGHT, "demo", *args],
                stdin=its,
                stdout=its,
                stderr=its,
                env=environment(TERM="xterm-256color"),
                start_new_session=True,
                preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            )
        finally:
            os.close(its)
        try:
            yield Terminal(process, stream)
        finally:
            if process.returncode is None:
                process.kill()
            with trio.move_on_after(10, shield=True):
                await process.wait()


async def test_demo_on_a_terminal_stays_until_ctrl_c():
    with trio.fail_after(60):
        async with on_terminal("--script-pace", "0") as terminal:
            await terminal.shows("Give it an evening theme")
            await terminal.shows("curl ")
            await terminal.shows("-d '")
            lines = _ESCAPE.sub("", terminal.shown).splitlines()
            url = next(line for line in lines if line.startswith("http://"))
            assert lines.count(url) == 2  # at the start, and where it says that it stays
            assert "\x1b[1m" in terminal.shown
            async with api(url) as client:
                assert (await client.get(url)).status_code in {302, 303}  # takes the token, and goes on to the page
            await terminal.press_ctrl_c()
            assert await terminal.process.wait() == 0
            assert await refuses(urlsplit(url).port)
            assert processes_of_session(terminal.process.pid) == []
    assert "Traceback" not in terminal.shown


async def test_ctrl_c_before_the_first_turn_is_through_is_an_interrupt():
    with trio.fail_after(60):
        async with on_terminal("--script-pace", "0.5") as terminal:
            await terminal.shows("scripted model, not a real one")
            await terminal.press_ctrl_c()
            assert await terminal.process.wait() == 130
    assert "Traceback" not in terminal.shown
