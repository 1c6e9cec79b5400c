"""What is kept of a session when nothing of it is alive, and what the API shows of it."""

from typing import Literal

import msgspec

from daemon.sessions.lifecycle import Status


class Usage(msgspec.Struct):
    """Tokens, summed over a session, as the Messages API counts them."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0

    @property
    def counted(self) -> int:
        """What a budget counts: all but what was read from the cache, which costs little and grows with each reply."""
        return self.input_tokens + self.cache_creation_input_tokens + self.output_tokens

    def add(self, other: "Usage") -> None:
        """Sum in place."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Failure(msgspec.Struct, frozen=True):
    """Why a session ended in `error`."""

    code: str
    detail: str


class Settings(msgspec.Struct, kw_only=True):
    """What a session was asked for; a later message may change it for the next run."""

    model: str
    system: str | None = None
    approval: Literal["auto", "ask"] | None = None  # None: the daemon's own, whatever that is by then
    timeout: float = 3600.0
    token_budget: int | None = None


class Record(msgspec.Struct, kw_only=True):
    """One session, as kept in the store."""

    session_id: str
    created_at: str
    last_activity: str
    expires_at: str | None
    settings: Settings
    status: Status = Status.initializing
    turn: int = 0
    offset: int = 0
    epoch: str = ""
    usage: Usage = msgspec.field(default_factory=Usage)
    error: Failure | None = None

    def encode(self) -> bytes:
        """As kept in the store."""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> "Record":
        """As it was kept."""
        return msgspec.json.decode(data, type=cls)


class SessionView(msgspec.Struct, kw_only=True):
    """A session as the API shows it: a snapshot."""

    session_id: str
    status: Status
    websocket_url: str | None
    watch_url: str | None
    preview_url: str | None
    health_url: str | None
    created_at: str
    last_activity: str
    expires_at: str | None
    turn: int
    queued_prompts: int
    connected_clients: int
    offset: int
    epoch: str
    model: str
    usage: Usage
    error: Failure | None


def view_of(record: Record) -> SessionView:
    """The view of a session that is not alive."""
    return SessionView(
        session_id=record.session_id,
        status=record.status,
        websocket_url=None,
        watch_url=None,
        preview_url=None,
        health_url=None,
        created_at=record.created_at,
        last_activity=record.last_activity,
        expires_at=record.expires_at,
        turn=record.turn,
        queued_prompts=0,
        connected_clients=0,
        offset=record.offset,
        epoch=record.epoch,
        model=record.settings.model,
        usage=record.usage,
        error=record.error,
    )
