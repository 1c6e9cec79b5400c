"""A workspace with its sandbox, without a session."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from daemon.config import Config
from daemon.services import open_services
from daemon.testing import test_config as make_config
from daemon.workspace.files import Workspace, open_workspace
from daemon.workspace.sandbox import Outcome, Sandbox, open_sandbox


class Box:
    """What `run` printed as it came is in `shown`."""

    def __init__(self, workspace: Workspace, sandbox: Sandbox, config: Config) -> None:
        self.workspace = workspace
        self.sandbox = sandbox
        self.config = config
        self.shown: list[str] = []

    async def run(self, command: str, deadline: float = 20) -> Outcome:
        self.shown = []
        return await self.sandbox.run(command, deadline=deadline, show=self.shown.append)

    async def prints(self, command: str) -> str:
        """What a command that must succeed prints."""
        outcome = await self.run(command)
        assert (outcome.code, outcome.remark) == (0, None), outcome
        return outcome.text

    async def until_shown(self, text: str) -> None:
        while text not in "".join(self.shown):
            await trio.sleep(0.002)


@asynccontextmanager
async def open_box(folder: Path, *, max_file: int = 16 << 20, **settings: Any) -> AsyncIterator[Box]:
    config = make_config(folder, **{"delta_window": 0.0, **settings})
    with trio.fail_after(60), open_workspace(folder / "w", max_file=max_file) as workspace:
        async with open_services() as services, open_sandbox(services, workspace, "abc", config) as sandbox:
            yield Box(workspace, sandbox, config)
