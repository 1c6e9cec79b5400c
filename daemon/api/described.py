"""What a route says of itself, by quart-schema's decorators; nothing is made of it before somebody asks for the document.

quart-schema brings pydantic with it: 8 MB and 0.2 s that a daemon does not spend on its start.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from daemon.api.schemas import Problem

Route = TypeVar("Route", bound=Callable[..., Any])


def _later(name: str) -> Callable[..., Callable[[Route], Route]]:
    """quart-schema's decorator of this name, applied by `describe`."""

    def decorator(*args: Any) -> Callable[[Route], Route]:
        def decorate(route: Route) -> Route:
            vars(route).setdefault("described", []).append((name, args))
            return route

        return decorate

    return decorator


tag = _later("tag")
document_headers = _later("document_headers")
document_querystring = _later("document_querystring")
document_request = _later("document_request")
document_response = _later("document_response")


def refuses(*statuses: int) -> Callable[[Route], Route]:
    """Document which refusals a route has beside those that every route has."""

    def decorate(route: Route) -> Route:
        for status in statuses:
            route = document_response(Problem, status)(route)
        return route

    return decorate


def sends(content_type: str) -> Callable[[Route], Route]:
    """Document that a route answers 200 with this type, beside the JSON of a schema that it may also have."""

    def decorate(route: Route) -> Route:
        route.content_type = content_type  # type: ignore[attr-defined]
        return route

    return decorate


def describe(route: Callable[..., Any], decorators: Any) -> None:
    """Apply what was said of a route; `decorators` is quart-schema."""
    for name, args in vars(route).get("described", ()):
        getattr(decorators, name)(*args)(route)
