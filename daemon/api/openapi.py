"""The routes of the API's document: as JSON, and as a page."""

from collections.abc import Iterable
from typing import Any

import msgspec
import trio
from quart import Blueprint, Response
from quart_trio import QuartTrio

from daemon.api.described import sends, tag
from daemon.api.docs import POLICY, page


def routes(app: QuartTrio) -> Blueprint:
    """The document and its page; made when first asked for, so that all routes are in it."""
    blueprint = Blueprint("openapi", __name__)
    kept: list[dict[str, Any]] = []

    async def document() -> dict[str, Any]:
        if not kept:
            kept.append(await trio.to_thread.run_sync(_made, list(app.blueprints.values()), abandon_on_cancel=True))
        return kept[0]

    @blueprint.get("/openapi.json")
    @tag(["daemon"])
    @sends("application/json")
    async def get_openapi() -> Response:
        """The API as an OpenAPI document."""
        return Response(msgspec.json.encode(await document()), content_type="application/json")

    @blueprint.get("/docs")
    @tag(["daemon"])
    @sends("text/html")
    async def get_docs() -> Response:
        """The API as a page."""
        headers = {"Content-Security-Policy": POLICY}
        return Response(page(await document()), content_type="text/html; charset=utf-8", headers=headers)

    return blueprint


def _made(blueprints: Iterable[Any]) -> dict[str, Any]:
    from daemon.api.document import made  # noqa: PLC0415  # slow: see described.py

    return made(blueprints)
