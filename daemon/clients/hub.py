"""Who is connected to a session: ids, counts, presence."""

import itertools
from contextlib import AbstractContextManager
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

    def joined(self, role: Role) -> AbstractContextManager[Client]:
        """Count a client while the block runs, and tell the others."""
        return _Joined(self, Client(next(self._ids), role))

    def enter(self, client: Client) -> int:
        """Count a client and tell the others; the number to leave with."""
        number = self._clients.enter(client)
        self._tell("client_joined", client, "client_connected")
        return number

    def leave(self, number: int, client: Client) -> None:
        """It is gone: tell the others."""
        self._clients.leave(number)
        self._tell("client_left", client, "client_disconnected")

    async def drain(self) -> None:
        """Wait until nobody is connected."""
        await self._clients.wait_empty()

    def _tell(self, kind: str, client: Client, line: str) -> None:
        log.info(line, session_id=self._journal.session_id, client_id=client.client_id, clients=len(self))
        if not self._journal.ended:
            self._journal.publish(kind, client_id=client.client_id, role=client.role, connected_clients=len(self))


class _Joined(AbstractContextManager[Client]):
    """A block of `joined`: by hand, as each idle client is in one, and a generator takes five times as much memory."""

    __slots__ = ("_client", "_hub", "_number")

    def __init__(self, hub: Hub, client: Client) -> None:
        self._hub = hub
        self._client = client

    def __enter__(self) -> Client:
        self._number = self._hub.enter(self._client)
        return self._client

    def __exit__(self, *_: object) -> None:
        self._hub.leave(self._number, self._client)
