"""Who is connected to a session: ids, counts, presence."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from daemon.clients.auth import Role
from daemon.clients.fanout import Fanout
from daemon.journal.journal import Journal
from daemon.log import log
from daemon.occupancy import Occupancy


@dataclass(frozen=True, slots=True)
class Client:
    """One connected WebSocket."""

    client_id: int
    role: Role


class Hub:
    """The clients of one session."""

    def __init__(self, journal: Journal) -> None:
        self.close_code = 1000  # what clients are told when the journal has ended
        self.fanout = Fanout(journal)
        self._journal = journal
        self._clients: Occupancy[Client] = Occupancy()
        self._ids = itertools.count(1)

    def __len__(self) -> int:
        return len(self._clients)

    @contextmanager
    def joined(self, role: Role) -> Iterator[Client]:
        """Count a client while the block runs, and tell the others."""
        client = Client(next(self._ids), role)
        try:
            with self._clients.entered(client):
                self._tell("client_joined", client, "client_connected")
                yield client
        finally:
            self._tell("client_left", client, "client_disconnected")

    async def drain(self) -> None:
        """Wait until nobody is connected."""
        await self._clients.wait_empty()

    def _tell(self, kind: str, client: Client, line: str) -> None:
        log.info(line, session_id=self._journal.session_id, client_id=client.client_id, clients=len(self))
        if not self._journal.ended:
            self._journal.publish(kind, client_id=client.client_id, role=client.role, connected_clients=len(self))
