"""footlight's own path: journals, hubs and ports as sessions have them; argv: how many sessions, and `journaled` or `live`."""

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import trio

from bench.peers.events import SIZE, stamp
from bench.peers.on_trio import obey
from daemon import log
from daemon.clients.auth import Tokens
from daemon.clients.client import Audience
from daemon.clients.hub import Hub
from daemon.clients.port import open_port
from daemon.config import Config
from daemon.journal import events
from daemon.journal.journal import Journal, open_journal
from daemon.journal.present import Present
from daemon.services import open_services
from daemon.workspace.files import Workspace, open_workspace


class Idle:
    """What a session that does nothing says to its clients."""

    status = "running"
    queued_prompts = 0


async def open_door(
    stack: AsyncExitStack, journal: Journal, workspace: Workspace, config: Config
) -> tuple[Hub, tuple[int, str]]:
    """Who listens to a journal, and where: port and target."""
    services, tokens, hub = await stack.enter_async_context(open_services()), Tokens(), Hub(journal)
    idle: Any = Idle()
    audience = Audience(journal, hub, Present(), idle, config)
    port = await stack.enter_async_context(open_port(services, audience, tokens, workspace))
    return hub, (port.number, f"/ws?token={tokens.watch}")


@asynccontextmanager
async def open_sessions(folder: Path, count: int) -> AsyncIterator[list[tuple[Journal, tuple[int, str]]]]:
    """That many sessions' journals, and the door of each."""
    config = Config(max_clients=2000, max_connections=4000)
    async with AsyncExitStack() as stack:
        workspace = stack.enter_context(open_workspace(folder / "workspace", max_file=config.max_file))
        opened = []
        for at in range(count):
            journal, _ = stack.enter_context(
                open_journal(f"bench{at:04}", folder / str(at), limit=config.journal_limit)
            )
            _, door = await open_door(stack, journal, workspace, config)
            opened.append((journal, door))
        yield opened


def padding() -> str:
    """What an event's text is made of, so that it is as long as those of the peers."""
    bare = events.encode("bench0000", "claude_text", {"turn": 1, "block": 0, "text": ""}, 1)
    return "x" * (SIZE - len(bare) + 1)


async def main(count: int, kind: str) -> None:
    padded = padding()

    async def journaled(journal: Journal, at_once: int) -> None:
        with journal.together():  # as the agent does with all that one read of the model brings
            for _ in range(at_once):
                text = stamp()
                used = len(text) + len(str(journal.offset + 1))
                journal.append("claude_text", turn=1, block=0, text=text + padded[used:])

    async def live(journal: Journal, at_once: int) -> None:
        for _ in range(at_once):
            text = stamp()
            journal.publish("claude_text_delta", turn=1, block=0, position=0, text=text + padded[len(text) + 10 :])

    async def replay(at_once: int) -> None:
        await journaled(journals[0], at_once)

    with TemporaryDirectory(prefix="footlight-bench-") as folder:
        async with open_sessions(Path(folder), count) as opened:
            journals, say = [journal for journal, _ in opened], {"journaled": journaled, "live": live}[kind]
            doors = [door for _, door in opened]
            await obey(
                doors, partial(say, journals[0]), lambda: [partial(say, journal) for journal in journals], replay
            )


if __name__ == "__main__":
    log.configure("text", quiet=True)
    trio.run(main, int(sys.argv[1]), sys.argv[2])
