"""Routes of the daemon itself: health, metrics, and a word for whoever opens it in a browser."""

import trio
from quart import Blueprint, Response

from daemon import __version__
from daemon.api.described import document_response, sends, tag
from daemon.api.schemas import Health, answer
from daemon.sessions.registry import Registry

_WELCOME = """\
footlight {version}: one live URL per AI agent session

POST   /api/chat                       {{"message": "Build a restaurant menu"}} starts a session
GET    /api/sessions                   all sessions
GET    /api/sessions/ID?wait=30        one session, as soon as its URL answers
GET    /api/sessions/ID/events         its history; with Accept: text/event-stream live
POST   /api/sessions/ID/interrupt      ends the current turn
DELETE /api/sessions/ID                ends the session
GET    /health /metrics /openapi.json /docs
"""


def health_of(registry: Registry) -> Health:
    """Whether a daemon is well."""
    counts = registry.counts()
    return Health(
        status="shutting_down" if registry.closing else "healthy",
        version=__version__,
        sessions=counts["sessions"],
        clients=counts["clients"],
        uptime_seconds=round(trio.current_time() - registry.opened_at, 3),
    )


def routes(registry: Registry) -> Blueprint:
    """The routes, bound to one daemon's sessions."""
    blueprint = Blueprint("status", __name__)

    @blueprint.get("/health")
    @tag(["daemon"])
    @document_response(Health, 200)
    async def get_health() -> Response:
        """Whether the daemon is well."""
        return answer(health_of(registry))

    @blueprint.get("/metrics")
    @tag(["daemon"])
    @sends("text/plain")
    async def get_metrics() -> Response:
        """The counts as Prometheus text."""
        from daemon.api.metrics import exposition  # noqa: PLC0415  # prometheus_client is needed by nobody else

        return Response(
            exposition(registry, trio.current_time() - registry.opened_at),
            content_type="text/plain; version=0.0.4; charset=utf-8",
        )

    @blueprint.get("/")
    @tag(["daemon"])
    @sends("text/plain")
    async def get_root() -> Response:
        """What there is."""
        return Response(_WELCOME.format(version=__version__), content_type="text/plain; charset=utf-8")

    return blueprint
