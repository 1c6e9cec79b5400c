"""Errors of the model, as ours."""

from email.utils import formatdate
from time import time
from typing import Any

import anthropic
import httpx2
import pytest
import trio

from daemon.agent.model_errors import error_in_stream, model_error

REQUEST = httpx2.Request("POST", "http://x/v1/messages")


def status_error(status: int, body: Any, headers: dict[str, str] | None = None) -> anthropic.APIStatusError:
    response = httpx2.Response(status, request=REQUEST, headers=headers)
    return anthropic.APIStatusError("told", response=response, body=body)


def told(kind: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": "why"}}


@pytest.mark.parametrize(
    ("error", "error_type", "retryable", "detail"),
    [
        (status_error(529, told("overloaded_error")), "overloaded_error", True, "529: why"),
        (status_error(429, told("rate_limit_error")), "rate_limit_error", True, "429: why"),
        (status_error(401, told("authentication_error")), "authentication_error", False, "401: why"),
        (status_error(502, None), "api_error", True, "502: told"),
        (status_error(502, "<html>"), "api_error", True, "502: told"),
        (status_error(400, {"error": "odd"}), "api_error", False, "400: told"),
        (anthropic.APIConnectionError(request=REQUEST), "connection_error", True, "the connection to the model failed"),
        (httpx2.ReadError("gone"), "connection_error", True, "the connection to the model failed: gone"),
        (anthropic.AnthropicError("odd"), "api_error", False, "odd"),
        (KeyError(3), "malformed_answer", True, "the model's answer is malformed"),
        (trio.TooSlowError(), "silence", True, "the model fell silent"),
    ],
)
def test_error_of_the_model_is_ours(error, error_type, retryable, detail):
    ours = model_error(error)
    assert ours is not None
    assert (ours.code, ours.retryable) == (error_type, retryable)
    assert ours.detail.startswith(detail)


def test_other_errors_stay_what_they_are():
    assert model_error(OSError("disk")) is None
    assert model_error(RuntimeError("bug")) is None


@pytest.mark.parametrize(
    ("event", "error_type", "retryable", "detail"),
    [
        (told("overloaded_error"), "overloaded_error", True, "why"),
        (told("api_error"), "api_error", True, "why"),
        (told("invalid_request_error"), "invalid_request_error", False, "why"),
        ({"type": "error"}, "api_error", True, "the model's answer broke off"),
    ],
)
def test_error_event_in_a_stream_is_ours(event, error_type, retryable, detail):
    ours = error_in_stream(event)
    assert (ours.code, ours.retryable, ours.detail) == (error_type, retryable, detail)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "7", "retry-after-ms": "20"}, 0.02),
        ({"retry-after": "7", "retry-after-ms": "soon"}, 7),
        ({"retry-after": "-7"}, 0),
        ({"retry-after": "soon"}, 0),
        ({"retry-after": formatdate(time() + 9000)}, 9000),
        ({"retry-after": formatdate(time() - 90)}, 0),
    ],
)
def test_time_that_the_api_asks_to_be_left_alone_is_kept(headers, seconds):
    ours = model_error(status_error(429, told("rate_limit_error"), headers))
    assert ours is not None
    assert ours.retry_after == pytest.approx(seconds, abs=600 if seconds == 9000 else 1e-6)


@pytest.mark.parametrize(("status", "said", "retryable"), [(529, "false", False), (400, "true", True), (529, "", True)])
def test_api_has_the_last_word_on_whether_to_try_again(status, said, retryable):
    ours = model_error(status_error(status, told("some_error"), {"x-should-retry": said}))
    assert ours is not None
    assert ours.retryable is retryable
