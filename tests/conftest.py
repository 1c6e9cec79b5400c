"""Fixtures: a daemon over real sockets, and a quiet log."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from daemon import log
from daemon.main import Daemon
from daemon.testing import open_test_daemon


@pytest.fixture(autouse=True, scope="session")
def _quiet_log() -> None:
    log.configure("text", quiet=True)


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    """A whole daemon with the scripted model; ends with the test."""
    with trio.fail_after(60):
        async with open_test_daemon(tmp_path) as opened:
            yield opened
