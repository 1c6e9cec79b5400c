"""One session's agent on a real journal, workspace and store, talking by HTTP to the scripted model."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import msgspec
import trio

from daemon.agent.conversation import Conversation
from daemon.agent.models import Models, open_models
from daemon.agent.turns import Agent
from daemon.config import Config
from daemon.journal import frames
from daemon.journal.journal import Journal, open_journal
from daemon.journal.present import Present
from daemon.journal.store import Store
from daemon.services import Services, open_services
from daemon.sessions.record import Settings, Usage
from daemon.testing import test_config as make_config
from daemon.workspace import beneath
from daemon.workspace.files import Workspace
from daemon.workspace.sandbox import Sandbox, open_sandbox

PREVIEW = "http://127.0.0.1:1"


def shown(journal: Journal) -> list[dict[str, Any]]:
    """Everything that a client which keeps up has been shown, live events included."""
    return [msgspec.json.decode(frames.payload_of(frame)) for frame, _ in journal.ring.after(0) or []]


class Play:
    """An agent on stage."""

    sandbox: Sandbox

    def __init__(self, agent: Agent, journal: Journal, workspace: Workspace, conversation: Conversation) -> None:
        self.agent = agent
        self.journal = journal
        self.workspace = workspace
        self.conversation = conversation
        self.usage = Usage()
        self.settings = Settings(model="scripted")
        self.present = Present()
        self.turns = 0

    def shown(self) -> list[dict[str, Any]]:
        return shown(self.journal)

    def journaled(self) -> list[dict[str, Any]]:
        return [event for event in self.shown() if "offset" in event]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event["data"] for event in self.shown() if event["event"] == kind]

    async def prompt(self, text: str) -> list[dict[str, Any]]:
        """One turn; the events that it journaled."""
        before = len(self.journaled())
        self.turns += 1
        await self.agent.run_turn(self.turns, text, f"m{self.turns}")
        return self.journaled()[before:]

    async def until(self, done: Callable[[list[dict[str, Any]]], bool]) -> None:
        """Wait until what has been shown is enough."""
        while not done(self.shown()):
            await self.journal.wait_change()

    def kept(self) -> list[dict[str, Any]]:
        """The conversation as the store has it."""
        return self.conversation._store.conversation(self.journal.session_id)

    def text(self, path: str) -> str:
        return self.workspace.read(path).decode()


class Stage:
    """A model, and sessions that talk to it."""

    def __init__(self, folder: Path, config: Config, store: Store, models: Models) -> None:
        self.config = config
        self.store = store
        self.models = models
        self._folder = folder

    @contextmanager
    def _open(
        self, services: Services, name: str, settings: Settings, usage: Usage, open_beneath: beneath.OpenBeneath
    ) -> Iterator[Play]:
        home = self._folder / name
        (home / "workspace").mkdir(parents=True, exist_ok=True)
        root = home / "workspace"
        with (
            closing(Workspace(root, max_file=self.config.max_file, open_beneath=open_beneath)) as workspace,
            open_journal(name, home / "journal", limit=self.config.journal_limit) as (journal, _),
        ):
            journal.ring.join()  # for `shown`
            conversation, present = Conversation(self.store, name), Present()
            sandbox = open_sandbox(services, workspace, name, self.config)
            agent = Agent(
                journal=journal,
                present=present,
                workspace=workspace,
                sandbox=sandbox,
                conversation=conversation,
                models=self.models,
                settings=settings,
                usage=usage,
                preview_url=PREVIEW,
                config=self.config,
            )
            play = Play(agent, journal, workspace, conversation)
            play.sandbox = sandbox
            play.usage, play.settings, play.present = usage, settings, present
            yield play

    @asynccontextmanager
    async def play(
        self,
        name: str = "abc",
        *,
        token_budget: int | None = None,
        usage: Usage | None = None,
        approval: Literal["auto", "ask"] = "auto",
        open_beneath: beneath.OpenBeneath = beneath.open_beneath,
    ) -> AsyncIterator[Play]:
        settings = Settings(model="scripted", token_budget=token_budget, approval=approval)
        async with open_services() as services:
            with self._open(services, name, settings, usage or Usage(), open_beneath) as play:
                async with play.sandbox:
                    yield play


@asynccontextmanager
async def open_stage(folder: Path, script: str | None = None, **settings: Any) -> AsyncIterator[Stage]:
    """The built-in script, or one of these turns."""
    path = None
    if script is not None:
        path = folder / "script.toml"
        path.write_text(script if script.lstrip().startswith("name") else f'name = "test"\n{script}')
    config = make_config(
        folder, **{"script": path, "model_retries": 0, "retry_first": 0.01, "delta_window": 0.0, **settings}
    )
    with trio.fail_after(30), closing(Store(folder / "footlight.db")) as store:
        async with open_models(config) as models:
            await models.client("scripted")  # the slow import is no part of a turn
            yield Stage(folder, config, store, models)


def check_conversation(messages: list[dict[str, Any]]) -> None:
    """Hold a conversation to the rules by which the Messages API refuses one."""
    messages = _merged(messages)
    assert not messages or messages[0]["role"] == "user"
    open_calls: list[str] = []
    for message in messages:
        blocks = message["content"]
        kinds = [block["type"] for block in blocks]
        assert blocks
        if message["role"] == "user":
            assert [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"] == open_calls
            assert kinds[: len(open_calls)] == ["tool_result"] * len(open_calls)
            assert set(kinds) <= {"tool_result", "text"}
            open_calls = []
        else:
            assert set(kinds) <= {"text", "thinking", "tool_use", "compaction"}
            open_calls = [block["id"] for block in blocks if block["type"] == "tool_use"]
        for block in blocks:
            match block["type"]:
                case "text":
                    assert block["text"].strip()
                case "thinking":
                    assert block["signature"]
                case "tool_use":
                    assert isinstance(block["input"], dict)
                case "tool_result":
                    assert block["content"] or not block["is_error"]
    assert not open_calls
    assert all(one["role"] != other["role"] for one, other in pairwise(messages))


def _merged(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As the API reads it: what one role says in several messages is one message."""
    merged: list[dict[str, Any]] = []
    for message in messages:
        if merged and merged[-1]["role"] == message["role"]:
            merged[-1]["content"] = merged[-1]["content"] + message["content"]
        else:
            merged.append(dict(message))
    return merged
