"""What the API sends and takes, declared once: encoded, checked and documented from here."""

from typing import Annotated, Any, Literal, TypeVar

import msgspec
from quart import Response, request

from daemon.config import Config
from daemon.errors import CallerError, invalid_request
from daemon.sessions.record import SessionView

T = TypeVar("T")


class ChatAnswer(SessionView, kw_only=True):
    """A session, and what became of the message."""

    accepted: Literal["created", "queued", "duplicate"]
    message: str


class SessionList(msgspec.Struct):
    """Sessions, newest first."""

    sessions: list[SessionView]
    total: int
    next_cursor: str | None = None


class EventPage(msgspec.Struct):
    """A stretch of a session's history, each event as on the wire."""

    events: list[dict[str, Any]]
    offset: int  # the journal's last
    next_offset: int  # go on here
    epoch: str


class FileEntry(msgspec.Struct):
    """A file of a workspace."""

    path: str
    size: int
    mtime: str
    type: str


class FileList(msgspec.Struct):
    """The files of a workspace, by path."""

    files: list[FileEntry]
    truncated: bool  # there may be more


class Health(msgspec.Struct):
    """Whether the daemon is well."""

    status: Literal["healthy", "shutting_down"]
    version: str
    sessions: int
    clients: int
    uptime_seconds: float


class Problem(msgspec.Struct, omit_defaults=True):
    """RFC 9457 `application/problem+json`."""

    title: str
    status: int
    code: str
    detail: str = ""
    type: str = "about:blank"


class WaitQuery(msgspec.Struct):
    """`?wait=`"""

    wait: Annotated[float, msgspec.Meta(ge=0, le=60, description="seconds to wait for the URL or the end")] = 0.0


class ListQuery(msgspec.Struct):
    """`?status=&limit=&cursor=`"""

    status: Annotated[str, msgspec.Meta(description="one or more statuses, separated by commas")] = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=500, description="sessions on a page")] = 50
    cursor: Annotated[str | None, msgspec.Meta(description="`next_cursor` of the page before")] = None


class EventsQuery(msgspec.Struct):
    """`?offset=&limit=&epoch=`"""

    offset: Annotated[
        int, msgspec.Meta(ge=0, le=Config.max_offset, description="the last one that is already known")
    ] = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=10_000, description="events on a page; a stream has none")] = 1000
    epoch: Annotated[str | None, msgspec.Meta(description="which journal the offset belongs to")] = None


class EventsHeaders(msgspec.Struct):
    """`Last-Event-ID`"""

    last_event_id: Annotated[int | None, msgspec.Meta(description="counts in place of `offset`")] = None


class DeleteQuery(msgspec.Struct):
    """`?purge=`"""

    purge: Annotated[bool, msgspec.Meta(description="delete journal and workspace, too")] = False


def query(shape: type[T]) -> T:
    """The query string as a struct."""
    try:
        return msgspec.convert(request.args.to_dict(), shape, strict=False)
    except msgspec.ValidationError as error:
        raise invalid_request(f"query: {error}", status=400) from None


async def body(shape: type[T]) -> T:
    """The JSON body as a struct."""
    if request.mimetype != "application/json":
        raise invalid_request("the body must be JSON with Content-Type: application/json", status=400)
    data = await request.get_data(as_text=False)
    try:
        return msgspec.json.decode(data, type=shape)
    except msgspec.ValidationError as error:
        raise invalid_request(f"body: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise invalid_request(f"the body is not JSON: {error}", status=400) from None


def answer(value: Any, status: int = 200) -> Response:
    """A value as JSON."""
    return Response(
        msgspec.json.encode(value), status, content_type="application/json", headers={"Cache-Control": "no-store"}
    )


def problem(error: CallerError, title: str) -> Response:
    """An error as the contract has it."""
    value = Problem(title=title, status=error.status, code=error.code, detail=error.detail)
    response = Response(msgspec.json.encode(value), error.status, content_type="application/problem+json")
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    if error.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response
