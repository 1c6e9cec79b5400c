"""Ctrl+C while the command is still being imported."""

import re
import signal
import subprocess
import sys

import pytest
import trio

from tests.system.processes import environment


@pytest.mark.parametrize("imported", ["tomllib", "daemon.config", "trio", "hypercorn"])
async def test_interrupt_during_the_imports_ends_without_a_word(tmp_path, imported):
    with trio.fail_after(60):
        process = await trio.lowlevel.open_process(
            [sys.executable, "-X", "importtime", "-m", "daemon", "serve", "--port", "0", "--state-dir", str(tmp_path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        async with process.stderr:
            told, sent = b"", False
            async for piece in process.stderr:
                told += piece
                if not sent and re.search(rf"\| +{re.escape(imported)}\n", told.decode()):
                    process.send_signal(signal.SIGINT)
                    sent = True
        assert await process.wait() == 130
    others = [line for line in told.decode().splitlines() if not line.startswith("import time:")]
    assert others == []
