"""What goes wrong between a model and us, as one kind of error that says whether another try may help."""

import time
from email.utils import mktime_tz, parsedate_tz
from typing import Any

import trio

from daemon.errors import ModelError

TOO_LONG = "prompt_too_long"
# Error types that another try may help.
_PASSING = {"overloaded_error", "api_error", "rate_limit_error", "timeout_error"}


def model_error(error: Exception) -> ModelError | None:
    """An error of the SDK or of its connection as ours; None for any other."""
    import anthropic  # noqa: PLC0415
    import httpx2  # noqa: PLC0415

    if isinstance(error, anthropic.APIStatusError):
        kind, message = _told(error.body, error.message)
        if error.status_code == 400 and "prompt is too long" in message:
            kind = TOO_LONG
        headers = error.response.headers
        retryable = error.status_code in {408, 409, 429} or error.status_code >= 500 or kind == "overloaded_error"
        retryable = {"true": True, "false": False}.get(headers.get("x-should-retry", ""), retryable)
        return ModelError(
            f"{error.status_code}: {message}", error_type=kind, retryable=retryable, retry_after=_retry_after(headers)
        )
    if isinstance(error, (anthropic.APIConnectionError, httpx2.HTTPError)):
        return ModelError(f"the connection to the model failed: {error}", error_type="connection_error", retryable=True)
    if isinstance(error, anthropic.AnthropicError):
        return ModelError(str(error), error_type="api_error", retryable=False)
    if isinstance(error, (ValueError, KeyError, AttributeError, TypeError, RecursionError)):
        return ModelError(f"the model's answer is malformed: {error!r}", error_type="malformed_answer", retryable=True)
    if isinstance(error, trio.TooSlowError):
        return ModelError("the model fell silent", error_type="silence", retryable=True)
    return None


def connection_errors() -> tuple[type[Exception], ...]:
    """What a broken connection raises, once it streams."""
    import httpx2  # noqa: PLC0415

    return (httpx2.HTTPError,)


def error_in_stream(event: dict[str, Any]) -> ModelError:
    """An `error` event in the place of the rest of a reply."""
    kind, message = _told(event, "the model's answer broke off")
    return ModelError(message, error_type=kind, retryable=kind in _PASSING)


def _told(body: Any, otherwise: str) -> tuple[str, str]:
    """Type and message of an error as the API words it."""
    inner = body.get("error") if isinstance(body, dict) else None
    if not isinstance(inner, dict):
        return "api_error", otherwise
    return str(inner.get("type", "api_error")), str(inner.get("message", otherwise))


def _retry_after(headers: Any) -> float:
    """How long the API asks to be left alone, in seconds: in milliseconds, in seconds or as a date; 0 where it does not."""
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            return max(0.0, float(headers[name]) / unit)
        except (KeyError, ValueError):
            continue
    date = parsedate_tz(headers.get("retry-after", ""))
    return max(0.0, mktime_tz(date) - time.time()) if date else 0.0
