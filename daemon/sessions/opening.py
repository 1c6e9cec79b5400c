"""What a session owns, in order.

Workspace, journal, sandbox, port, tunnel; then the body runs; then everybody is told how it ended; then the same in reverse. Its URL
therefore lives exactly as long as the session, whatever ends it.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress

import trio

from daemon.agent.conversation import Conversation
from daemon.agent.models import Models
from daemon.agent.turns import Agent
from daemon.clients.client import Audience
from daemon.clients.hub import Hub
from daemon.clients.port import Port, open_port
from daemon.config import Config
from daemon.errors import JournalFull
from daemon.journal.journal import Journal
from daemon.journal.present import Present
from daemon.journal.store import Store
from daemon.log import log
from daemon.services import Services, open_services
from daemon.sessions.lifecycle import Reason
from daemon.sessions.recovery import open_proven
from daemon.sessions.session import Session
from daemon.workspace.files import open_workspace
from daemon.workspace.sandbox import Sandbox, open_sandbox
from tunnel import Restored, Tunnel, TunnelError, TunnelProvider
from tunnel.probe import verify


@asynccontextmanager
async def open_session(
    session: Session, *, config: Config, store: Store, tunnels: TunnelProvider, models: Models
) -> AsyncIterator[Session]:
    """Everything a session owns, ready to run.

    Cancelled at any step, or failed, what had been opened is closed again in reverse, and the journal has its `session_end`.
    """
    home = config.session_dir(session.session_id)
    with (
        open_workspace(home / "workspace", max_file=config.max_file) as workspace,
        closing(await open_proven(session.record, home / "journal", config)) as journal,
    ):
        present, hub = Present(), Hub(journal)
        try:
            session.recorded_in(journal, hub)
            _begin(session, journal)
            audience = Audience(journal, hub, present, session, config)
            async with (
                open_services() as services,
                open_sandbox(services, workspace, session.session_id, config) as sandbox,
                open_port(services, audience, session.tokens, workspace) as port,
                tunnels.open(port) as tunnel,
            ):
                try:
                    await _check(session, port, tunnel.url, config)
                    log.info(
                        "tunnel_created", session_id=session.session_id, provider=tunnels.name, url=tunnel.websocket_url
                    )
                    log.info("tunnel_stable", session_id=session.session_id)
                    session.agent = Agent(
                        journal=journal,
                        present=present,
                        workspace=workspace,
                        sandbox=sandbox,
                        conversation=Conversation(store, session.session_id),
                        models=models,
                        settings=session.record.settings,
                        usage=session.record.usage,
                        preview_url=tunnel.url,
                        config=config,
                    )
                    session.opened(tunnel)
                    _Follower(session, tunnel, port, services, config).follow()
                    session.agent.announce_preview()
                    yield session
                except Exception as error:
                    session.fail(error)
                    raise
                finally:
                    await _farewell(session, journal, hub, config.drain_grace, sandbox)
        except Exception as error:
            session.fail(error)
            raise
        finally:
            await _farewell(session, journal, hub, config.drain_grace)
            session.save()


def _begin(session: Session, journal: Journal) -> None:
    """The journal's first events of this run: what was asked for so far."""
    first, *others = session.mailbox.waiting()
    journal.append("session_start", prompt=first.message, model=session.record.settings.model, work_dir="workspace")
    for position, prompt in enumerate(others, 2):
        journal.append("prompt_queued", message_id=prompt.message_id, prompt=prompt.message, position=position)
    session.recorded.set()
    log.info("spawned", run_id=session.run_id)


async def _check(session: Session, port: Port, url: str, config: Config) -> None:
    """The URL must answer through its tunnel, as this session, before anyone is told of it."""
    port.preview.secure = url.startswith("https")
    expected = f'"session_id":"{session.session_id}"'.encode()
    headers = {"Authorization": f"Bearer {session.tokens.watch}"}
    await verify(f"{url}/health", expected, headers=headers, deadline=config.verify_deadline)


class _Follower:
    """Tells a session what becomes of its URL; a task for as long as there is something to tell."""

    def __init__(self, session: Session, tunnel: Tunnel, port: Port, services: Services, config: Config) -> None:
        self._session = session
        self._tunnel = tunnel
        self._port = port
        self._services = services
        self._config = config

    def follow(self) -> None:
        """From now on, and what has happened already."""
        self._tunnel.on_change = bool
        self._services.start_soon(self._tell)

    async def _tell(self) -> None:
        session = self._session
        try:
            while (change := self._tunnel.take_change()) is not None:
                if isinstance(change, Restored):
                    await _check(session, self._port, change.new, self._config)
                session.tunnel_changed(change)
            self._tunnel.on_change = self.follow
        except TunnelError as error:  # without a URL it cannot go on
            session.fail(error)
            session.scope.cancel()


async def _farewell(session: Session, journal: Journal, hub: Hub, grace: float, sandbox: Sandbox | None = None) -> None:
    """Write `session_end`, once, and let everybody who follows read it; whoever takes longer than the grace is cut off."""
    if journal.ended:
        return
    session.begin_end()
    killed = await sandbox.close() if sandbox is not None else 0
    hub.close_code = 1001 if session.reason is Reason.shutdown else 1000
    with suppress(JournalFull):  # then the clients see the close alone
        detail, turns = session.detail, session.record.turn
        journal.append("session_end", reason=session.reason, turn_count=turns, detail=detail, processes_killed=killed)
    journal.end()
    with trio.move_on_after(grace, shield=True):
        await hub.drain()
        await session.readers.wait_empty()
