"""Routes of a session: making it, looking at it, ending it."""

from quart import Blueprint, Response, request

from daemon.api.described import document_querystring, document_request, document_response, refuses, tag
from daemon.api.schemas import ChatAnswer, DeleteQuery, ListQuery, SessionList, WaitQuery, answer, body, query
from daemon.errors import invalid_request
from daemon.sessions.lifecycle import Status
from daemon.sessions.record import SessionView
from daemon.sessions.registry import Asked, Registry

_SAID = {
    "created": "Session created; its URL follows",
    "queued": "Session exists; the message is its next prompt",
    "duplicate": "This message was accepted before",
}


def routes(registry: Registry) -> Blueprint:
    """The routes, bound to one daemon's sessions."""
    blueprint = Blueprint("sessions", __name__)

    @blueprint.post("/api/chat")
    @tag(["sessions"])
    @document_request(Asked)
    @document_response(ChatAnswer, 201)
    @document_response(ChatAnswer, 200)
    @refuses(400, 408, 413, 422, 429, 503)
    async def chat() -> Response:
        """Start a session, or give one its next prompt.

        Answers at once, before any tunnel or model work: 201 where a session was made, 200 where there was one. `accepted` says
        what became of the message. The same `message_id`, or where none is given the same text while it is still queued or being
        worked on, is a retry: `duplicate`.
        """
        asked = await body(Asked)
        view, accepted = await registry.chat(asked)
        fields = {name: getattr(view, name) for name in view.__struct_fields__}
        status = 201 if accepted == "created" else 200
        return answer(ChatAnswer(**fields, accepted=accepted, message=_SAID[accepted]), status)

    @blueprint.get("/api/sessions/<session_id>")
    @tag(["sessions"])
    @document_querystring(WaitQuery)
    @document_response(SessionView, 200)
    @refuses(400, 404)
    async def get_session(session_id: str) -> Response:
        """A session; `wait` answers as soon as it has its URL or has ended."""
        if request.query_string and (wait := query(WaitQuery).wait):
            return answer(await registry.wait(session_id, wait))
        return answer(registry.get(session_id))

    @blueprint.get("/api/sessions")
    @tag(["sessions"])
    @document_querystring(ListQuery)
    @document_response(SessionList, 200)
    @refuses(400)
    async def list_sessions() -> Response:
        """All sessions, newest first."""
        asked = query(ListQuery)
        statuses = [status for status in asked.status.split(",") if status]
        if unknown := set(statuses) - {*Status}:
            raise invalid_request(f"query: there is no status {min(unknown)!r}", status=400)
        if asked.cursor is not None and not (
            asked.cursor.isascii() and asked.cursor.isdecimal() and len(asked.cursor) < 19
        ):
            raise invalid_request("query: not a cursor of this list", status=400)
        views, total, following = registry.list(statuses, int(asked.cursor) if asked.cursor else None, asked.limit)
        return answer(SessionList(views, total, str(following) if following else None))

    @blueprint.delete("/api/sessions/<session_id>")
    @tag(["sessions"])
    @document_querystring(DeleteQuery)
    @document_response(SessionView, 200)
    @refuses(400, 404)
    async def delete_session(session_id: str) -> Response:
        """End a session; answered when its tunnel, listener, clients and processes are gone."""
        return answer(await registry.delete(session_id, purge=query(DeleteQuery).purge))

    @blueprint.post("/api/sessions/<session_id>/interrupt")
    @tag(["sessions"])
    @document_response(SessionView, 200)
    @refuses(404)
    async def interrupt_session(session_id: str) -> Response:
        """End the current turn; the session stays."""
        return answer(registry.interrupt(session_id))

    return blueprint
