"""The servers of the replay table, each in a process of its own."""

import os
import socket
import time
from contextlib import AsyncExitStack, closing
from multiprocessing.connection import Connection
from pathlib import Path

import trio

from bench.peers.footlight import open_door
from daemon import log
from daemon.clients.hub import Hub
from daemon.config import Config
from daemon.journal.journal import Journal, load_journal, open_journal
from daemon.workspace.files import open_workspace

LIVE_PAUSE = 0.002  # s between the live events of the other session


def session_ports(connection: Connection, folder: Path) -> None:
    """Two sessions' ports, the replayed one's and a live one's; tells where each is: (port, target)."""
    log.configure("text", quiet=True)
    trio.run(_session_ports, connection, folder)


async def _session_ports(connection: Connection, folder: Path) -> None:
    config = Config()
    long, _ = load_journal("bench0000", folder / "0", limit=config.journal_limit, writable=False)
    async with AsyncExitStack() as stack:
        stack.enter_context(closing(long))
        live, _ = stack.enter_context(open_journal("live", folder / "live", limit=config.journal_limit))
        workspace = stack.enter_context(open_workspace(folder / "workspace", max_file=config.max_file))
        told, hubs = [], []
        for journal in (long, live):
            hub, door = await open_door(stack, journal, workspace, config)
            told.append(door)
            hubs.append(hub)
        connection.send(told)
        await _publish(live, hubs[1])


async def _publish(journal: Journal, hub: Hub) -> None:
    """Events that say when they were due, while somebody follows."""
    while True:
        while not len(hub):
            await trio.sleep(0.01)
        began, due = trio.current_time(), time.perf_counter_ns()
        at = 0
        while len(hub):
            at += 1
            await trio.sleep_until(began + at * LIVE_PAUSE)
            journal.publish(
                "claude_text_delta", turn=1, block=0, position=0, text=f"due {due + int(at * LIVE_PAUSE * 1e9)}"
            )


def senders(connection: Connection, path: Path) -> None:
    """The file's bytes by blocking `sendall` and by `sendfile`, to whoever connects to their ports."""
    data = path.read_bytes()
    listeners = {name: socket.create_server(("127.0.0.1", 0)) for name in ("sendall", "sendfile")}
    connection.send({name: listener.getsockname()[1] for name, listener in listeners.items()})
    with path.open("rb") as file:
        while True:
            for name, listener in listeners.items():
                peer, _ = listener.accept()
                with peer:
                    peer.recv(16)
                    if name == "sendall":
                        peer.sendall(data)
                    else:
                        sent = 0
                        while sent < len(data):
                            sent += os.sendfile(peer.fileno(), file.fileno(), sent, len(data) - sent)
