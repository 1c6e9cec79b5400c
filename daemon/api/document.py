"""The OpenAPI document: quart-schema's, with shared schemas, the refusals of every route and other types than JSON."""

import re
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import quart_schema
from quart import Blueprint, Quart
from quart_schema import HttpSecurityScheme, Info, QuartSchema, Tag
from quart_schema.openapi import OpenAPIProvider
from werkzeug.routing import Rule

from daemon import __version__
from daemon.api.described import describe
from daemon.api.schemas import Problem
from daemon.sessions.registry import SessionId

_ABOUT = """\
One live URL per AI agent session. A caller on this machine needs no token, any other the API token as bearer.
Every refusal is `application/problem+json` (RFC 9457); its `code` says which one."""
_TAGS = {
    "sessions": "Starting sessions, looking at them, ending them",
    "events": "What has happened in a session",
    "files": "What the agent has made",
    "daemon": "The daemon itself",
}
_WHY = {
    400: "The body is not JSON, its Content-Type is not `application/json`, or a query value is not allowed: `invalid_request`",
    401: "The caller comes from another machine and sent no or the wrong API token: `unauthorized`",
    403: "`forbidden_host` or `forbidden_origin`",
    404: "There is no such session: `session_not_found`, or no such file in it: `not_found`",
    408: "The body did not come in time: `request_timeout`",
    413: "The body, or the archive that is asked for, is too large: `payload_too_large`",
    422: "The body is JSON but not what this route takes: `invalid_request`",
    429: "`too_many_sessions` are alive, or `too_many_prompts` wait in this one",
    503: "`shutting_down`, or `model_unavailable`",
}
_HEADERS = {401: "WWW-Authenticate", 429: "Retry-After", 503: "Retry-After"}
_EVERYWHERE = (401, 403)
_PARAMETER = re.compile(r"<(?:\w+:)?(\w+)>")


class Document(OpenAPIProvider):
    """Asks quart-schema for the routes and completes what it says."""

    def build_paths(self, rule: Rule) -> tuple[dict[str, Any], dict[str, Any]]:
        """The operations of one route, and the schemas they refer to."""
        route = self._app.view_functions[rule.endpoint]
        paths, schemas = super().build_paths(rule)
        (operations,) = paths.values()
        paths = {_PARAMETER.sub(r"{\1}", rule.rule): operations}  # its own pattern takes `<a>/b/<path:c>` for one
        for operation in operations.values():
            responses = operation["responses"]
            operation["description"] = operation["description"].strip()
            for status in _EVERYWHERE:
                responses[status], more = self.build_response_object(Problem, None)
                schemas |= more
            for status in responses.keys() & _WHY.keys():
                responses[status]["description"] = _WHY[status]
                if (name := _HEADERS.get(status)) is not None:
                    responses[status]["headers"] = {name: {"schema": {"type": "string"}}}
            if (content_type := getattr(route, "content_type", None)) is not None:
                ok = responses.setdefault(200, {"description": operation["summary"], "content": {}})
                kind = "object" if content_type == "application/json" else "string"
                ok["content"][content_type] = {"schema": {"type": kind}}
            operation["responses"] = {str(status): responses[status] for status in sorted(responses)}
        return paths, schemas

    def build_path_parameter(self, name: str, converter: Any) -> dict[str, Any]:
        """A session id is not any string, and a path is one beneath the workspace."""
        parameter: dict[str, Any] = super().build_path_parameter(name, converter)
        if name == "session_id":
            parameter["schema"], _ = _schema(SessionId)
        if name == "path":
            parameter["description"] = "of the file, beneath the workspace"
        return parameter

    def build_request_body(self, model: type, source: Any) -> tuple[dict[str, Any], dict[str, Any]]:  # noqa: ARG002
        """A body is JSON, and always needed."""
        schema, schemas = _schema(model)
        return {"required": True, "content": {"application/json": {"schema": schema}}}, schemas

    def build_response_object(self, model: type, headers_model: Any) -> tuple[dict[str, Any], dict[str, Any]]:  # noqa: ARG002
        """A problem has a type of its own."""
        schema, schemas = _schema(model)
        content_type = "application/problem+json" if model is Problem else "application/json"
        return {"description": model.__doc__, "content": {content_type: {"schema": schema}}}, schemas

    def operation_id(self, method: str, path: str, func: Callable[..., Any]) -> str:  # noqa: ARG002
        """The route's own name."""
        return func.__name__


def made(blueprints: Iterable[Blueprint]) -> dict[str, Any]:
    """The document of these routes. Slow: they are registered once more, in an app that only describes them."""
    app = Quart("footlight", static_folder=None)
    for blueprint in blueprints:
        app.register_blueprint(blueprint)
    for route in app.view_functions.values():
        describe(route, quart_schema)
    about = QuartSchema(
        app,
        openapi_path=None,  # its own page would load scripts from elsewhere
        info=Info(title="footlight", version=__version__, description=_ABOUT),
        tags=[Tag(name, description) for name, description in _TAGS.items()],
        security_schemes={"bearer": HttpSecurityScheme("bearer")},
        security=[{}, {"bearer": []}],
        openapi_provider_class=Document,
    )
    document: dict[str, Any] = about.openapi_provider.schema()
    return document


def _schema(model: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    (schema,), schemas = msgspec.json.schema_components([model], ref_template="#/components/schemas/{name}")
    return schema, schemas
