"""The Quart-Trio app: routes, and before them who may call, and after them what an error looks like."""

from quart import Response, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from daemon.api import events, files, openapi, sessions, status
from daemon.api.guard import caller_of, check
from daemon.api.schemas import problem
from daemon.config import Config
from daemon.errors import CallerError
from daemon.log import log
from daemon.sessions.registry import Registry

_CODES = {
    400: "invalid_request",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "payload_too_large",
}
_CORS = {
    "Access-Control-Allow-Methods": "GET, POST, DELETE, OPTIONS",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Last-Event-ID",
    "Access-Control-Expose-Headers": "Retry-After",
    "Access-Control-Max-Age": "600",
}
# An answer may hold a URL with its token, and none but a page of ours is to be shown; those set their own policy.
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}


def build_app(registry: Registry, config: Config) -> QuartTrio:
    """The app for one daemon."""
    app = QuartTrio("footlight", static_folder=None)  # by default it would serve ./static of wherever it was started
    app.url_map.merge_slashes = False  # a doubled slash is no route, and no redirect either
    app.url_map.converters["path"] = files.AnyPath
    app.config["MAX_CONTENT_LENGTH"] = config.max_body
    app.config["BODY_TIMEOUT"] = config.head_deadline
    for noun in (sessions, events, files, status):
        app.register_blueprint(noun.routes(registry))
    app.register_blueprint(openapi.routes(app))

    @app.before_request
    async def guard() -> Response | None:
        caller = caller_of(request.scope)
        check(caller, config)
        return Response("", 204) if caller.preflight else None

    @app.after_request
    async def finish(response: Response) -> Response:
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        if config.allow_origin:
            response.headers.add("Vary", "Origin")
            if (origin := request.headers.get("Origin")) in config.allow_origin:
                response.headers.update({"Access-Control-Allow-Origin": origin, **_CORS})
        return response

    @app.errorhandler(CallerError)
    async def refused(error: CallerError) -> Response:
        return problem(error, error.code.replace("_", " ").capitalize())

    @app.errorhandler(HTTPException)
    async def failed(error: HTTPException) -> Response:
        code = error.code or 500
        response = problem(
            CallerError(_CODES.get(code, "http_error"), code, error.description or error.name), error.name
        )
        if (allowed := getattr(error, "valid_methods", None)) is not None:
            response.headers["Allow"] = ", ".join(sorted(allowed))
        return response

    @app.errorhandler(Exception)
    async def broken(error: Exception) -> Response:
        log.error("request_failed", path=request.path, exc_info=error)
        return problem(CallerError("internal_error", 500, "the log says more"), "Internal error")

    return app
