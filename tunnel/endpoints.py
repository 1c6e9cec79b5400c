"""The endpoints that are wanted of an agent: what we keep ourselves, for pyngrok's table is one for all programs in a process."""

import secrets
from collections.abc import Iterable, Iterator

import trio

from tunnel import Lost, Restored, Tunnel, TunnelError

PREFIX = "footlight-"


class Endpoint:
    """One URL and what it leads to."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.name = ""  # at the agent; every attempt takes a new one, a failed one may keep its name taken
        self.tunnel: Tunnel | None = None  # once it has had a URL
        self.error: TunnelError | None = None  # why it never had one
        self.settled = trio.Event()  # one of the two is there
        self.wanted = True
        self.lost_since: float | None = None
        self.creating: trio.Event | None = None  # set when the attempt under way has ended

    @property
    def url(self) -> str | None:
        """Its URL, as it is or was last."""
        return self.tunnel.url if self.tunnel is not None else None

    def rename(self) -> str:
        """A name that nothing has had."""
        self.name = PREFIX + secrets.token_hex(8)
        return self.name

    def opened(self, url: str) -> None:
        """It answers at a URL: for the first time, or again."""
        if self.tunnel is None:
            self.tunnel = Tunnel(url)
            self.settled.set()
        elif self.lost_since is not None:
            away = trio.current_time() - self.lost_since
            self.lost_since = None
            self.tunnel.tell(Restored(self.tunnel.url, url, away))

    def lose(self, why: TunnelError) -> bool:
        """It answers no more, for now; whether that is news."""
        if self.tunnel is None or self.lost_since is not None:
            return False
        self.lost_since = trio.current_time()
        self.tunnel.tell(Lost(why.code, why.detail))
        return True

    def give_up(self, why: TunnelError) -> None:
        """No attempt is made any more."""
        self.wanted = False
        if self.tunnel is not None:
            self.tunnel.tell(why)
        else:
            self.error = why
            self.settled.set()


class Endpoints:
    """All that are wanted, and names that may still appear at the agent though nobody wants them."""

    def __init__(self) -> None:
        self.ghosts: set[str] = set()
        self._all: set[Endpoint] = set()

    def __iter__(self) -> Iterator[Endpoint]:
        return iter(list(self._all))

    def __len__(self) -> int:
        return len(self._all)

    def add(self, endpoint: Endpoint) -> None:
        """It is wanted from now on."""
        self._all.add(endpoint)

    def remove(self, endpoint: Endpoint) -> None:
        """It is wanted no more."""
        endpoint.wanted = False
        self._all.discard(endpoint)

    def lost(self) -> list[Endpoint]:
        """Those that had a URL, are wanted, and do not answer."""
        return [each for each in self._all if each.wanted and each.lost_since is not None]

    def settled(self) -> list[tuple[Endpoint, str]]:
        """Those that have had a URL and are not being opened just now, each with its name at the agent."""
        return [(each, each.name) for each in self._all if each.tunnel is not None and each.creating is None]

    def nobodys(self, listed: Iterable[str]) -> list[str]:
        """Of the names that an agent lists, ours that nobody wants: left by an attempt whose answer never came."""
        wanted = {each.name for each in self._all}
        return [name for name in listed if name.startswith(PREFIX) and name not in wanted]

    def has(self, url: str, *, besides: Endpoint) -> bool:
        """Whether another one has this URL."""
        return any(each.url == url for each in self._all if each is not besides)
