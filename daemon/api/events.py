"""Routes of a session's history: as a page, or as server-sent events that follow it live."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Self

import msgspec
import trio
from quart import Blueprint, Response, request
from quart.wrappers.response import ResponseBody

from daemon.api.described import document_headers, document_querystring, document_response, refuses, sends, tag
from daemon.api.schemas import EventPage, EventsHeaders, EventsQuery, answer, query
from daemon.config import Config
from daemon.errors import CallerError, invalid_request
from daemon.journal import events
from daemon.journal.journal import CHUNK_BYTES, Gap, Journal
from daemon.sessions.registry import Registry

_PAGE_BYTES = 4 << 20


def _start(journal: Journal, offset: int, epoch: str | None) -> tuple[int, list[bytes]]:
    """Where reading really begins, and what must be said first where that is not where the caller is."""
    reason = "epoch" if epoch is not None and epoch != journal.epoch else "ahead" if offset > journal.offset else None
    if reason is None:
        return offset, []
    return 0, [_live(journal, "replay_reset", reason=reason, epoch=journal.epoch)]


def _read(journal: Journal, offset: int, limit: int, max_bytes: int) -> tuple[int, list[tuple[int | None, bytes]]]:
    """The next events after an offset, each with its own offset; a gap is an event without one."""
    chunk = journal.read(offset, max_bytes=max_bytes, max_events=limit)
    if chunk is None:
        return offset, []
    if isinstance(chunk, Gap):
        return chunk.last, [(None, _live(journal, "replay_gap", **{"from": chunk.first, "to": chunk.last}))]
    return chunk.offset, list(enumerate(journal.payloads(offset, chunk), offset + 1))


def _live(journal: Journal, kind: str, **data: Any) -> bytes:
    return events.encode(journal.session_id, kind, data, None)


class EventStream(ResponseBody):
    """A journal as server-sent events; ends with the journal. Cancelled, it gives the journal back."""

    def __init__(
        self, history: AbstractAsyncContextManager[Journal], offset: int, epoch: str | None, interval: float
    ) -> None:
        self._history = history
        self._offset = offset
        self._epoch = epoch
        self._interval = interval  # seconds between signs of life
        self._first: list[bytes] = []
        self._journal: Journal

    async def __aenter__(self) -> Self:
        self._journal = await self._history.__aenter__()
        self._offset, self._first = _start(self._journal, self._offset, self._epoch)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._history.__aexit__(None, None, None)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._first:
            return b"data: " + self._first.pop() + b"\n\n"
        while True:
            self._offset, found = _read(self._journal, self._offset, 1000, CHUNK_BYTES)
            if found:
                return b"".join((b"id: %d\n" % at if at else b"") + b"data: " + data + b"\n\n" for at, data in found)
            if self._journal.ended:
                raise StopAsyncIteration
            with trio.move_on_after(self._interval) as quiet:
                await self._journal.wait_change()
            if quiet.cancelled_caught:
                return b": still here\n\n"


def routes(registry: Registry) -> Blueprint:
    """The routes, bound to one daemon's sessions."""
    blueprint = Blueprint("events", __name__)

    @blueprint.get("/api/sessions/<session_id>/events")
    @tag(["events"])
    @document_querystring(EventsQuery)
    @document_headers(EventsHeaders)
    @document_response(EventPage, 200)
    @sends("text/event-stream")
    @refuses(400, 404)
    async def get_events(session_id: str) -> Response:
        """What has happened in a session after an offset, also when it has ended.

        With `Accept: text/event-stream` the same as server-sent events: each with its offset as `id`, following live until the
        session ends, resumable by `Last-Event-ID`.
        """
        asked = query(EventsQuery)
        view = registry.get(session_id)
        if "text/event-stream" in request.headers.get("Accept", "").lower():
            # What has begun to stream can no longer be refused.
            if not view.status.live and not (registry.config.session_dir(session_id) / "journal").is_dir():
                raise CallerError("session_not_found", 404, f"nothing is kept of session {session_id}")
            offset = _last_event_id(asked.offset)
            if not view.status.live and (offset, asked.epoch or view.epoch) == (view.offset, view.epoch):
                return Response("", 204)  # nothing will follow: this is how an EventSource is told not to come back
            stream = EventStream(registry.history(session_id), offset, asked.epoch, registry.config.sse_interval)
            headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
            response = Response(stream, content_type="text/event-stream", headers=headers)
            response.timeout = None
            return response
        async with registry.history(session_id) as journal:
            offset, first = _start(journal, asked.offset, asked.epoch)
            found = [msgspec.Raw(data) for data in first]
            room = asked.limit
            while room > 0 and sum(map(len, found)) < _PAGE_BYTES:
                offset, more = _read(journal, offset, room, _PAGE_BYTES)
                if not more:
                    break
                found += [msgspec.Raw(data) for _, data in more]
                room -= len(more)
            page = {"events": found, "offset": journal.offset, "next_offset": offset, "epoch": journal.epoch}
            return answer(page)

    return blueprint


def _last_event_id(offset: int) -> int:
    given = request.headers.get("Last-Event-ID")
    if not given:
        return offset
    if not (given.isascii() and given.isdecimal() and len(given) < 20 and int(given) <= Config.max_offset):
        raise invalid_request("Last-Event-ID is an offset", status=400)
    return int(given)
