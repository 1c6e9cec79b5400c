"""footlight inside a test suite: a whole daemon in one `async with`, for users of pytest-trio.

async with open_test_daemon(tmp_path) as daemon:
    daemon.url, daemon.registry
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from daemon.config import Config
from daemon.main import Daemon, open_daemon


def test_config(state_dir: Path, **settings: Any) -> Config:
    """Free ports, the scripted model without any wait, state in a folder of the test's own."""
    defaults: dict[str, Any] = {
        "port": 0,
        "model": "scripted",
        "script_pace": 0.0,
        "tunnel": "local",
        "state_dir": state_dir,
    }
    return Config(**{**defaults, **settings})


@asynccontextmanager
async def open_test_daemon(state_dir: Path, **settings: Any) -> AsyncIterator[Daemon]:
    """A daemon with a test's settings. Leaving ends its sessions and closes everything, as SIGTERM would."""
    async with open_daemon(test_config(state_dir, **settings)) as daemon:
        yield daemon


test_config.__test__ = False  # type: ignore[attr-defined]  # not a test, whatever its name says to pytest
