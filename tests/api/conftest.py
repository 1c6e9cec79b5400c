"""The daemon of these tests plays a short script: `hold…` is worked on until somebody ends it, all else is answered at once."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from daemon.main import Daemon
from daemon.testing import open_test_daemon
from tests.api.calls import holding


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    with trio.fail_after(60):
        async with open_test_daemon(tmp_path / "state", **holding(tmp_path)) as opened:
            yield opened
