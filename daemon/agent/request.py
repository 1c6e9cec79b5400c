"""One request to the Messages API, with the marks of its prompt cache and the limits of its context; pure."""

from typing import Any

from daemon.agent.compaction import is_summary
from daemon.config import Config
from daemon.errors import ConfigError

_CACHED = {"cache_control": {"type": "ephemeral"}}
_BETA = "context-management-2025-06-27"
_SUMMARY_BETA = "compact-2026-01-12"
_LEAST_THINKING = 1024  # tokens: the API refuses a smaller budget


def request(
    config: Config,
    *,
    model: str,
    system: str,
    messages: list[dict[str, Any]],
    tools: tuple[dict[str, Any], ...],
    sums_up: bool = False,
) -> dict[str, Any]:
    """The arguments of `messages.create`; `sums_up`: summaries of the API's may be said back to it as what they are."""
    asked = {
        "model": model,
        "max_tokens": config.max_tokens,
        "system": [{"type": "text", "text": system, **_CACHED}],  # the tools come before it, and are cached with it
        "messages": _marked(messages if sums_up else _in_words(messages)),
        "tools": tools,
        "stream": True,
    }
    thinking = thinking_of(config)
    return asked if thinking is None else {**asked, "thinking": thinking}


def context_edits(config: Config, *, sums_up: bool) -> dict[str, Any]:
    """More arguments, for `beta.messages.create`: the API itself sums up a context that grows long, or leaves out old tool calls.

    One of the two: a summary has of the old calls what matters.
    """
    if sums_up:
        trigger = {"type": "input_tokens", "value": config.context_summary}
        edits = [{"type": "compact_20260112", "trigger": trigger}]
        return {"betas": [_SUMMARY_BETA], "context_management": {"edits": edits}}
    edit = {
        "type": "clear_tool_uses_20250919",
        "trigger": {"type": "input_tokens", "value": config.context_trigger},
        "keep": {"type": "tool_uses", "value": config.context_keep},
        "clear_at_least": {"type": "input_tokens", "value": config.context_clear},
        "clear_tool_inputs": True,  # what it wrote is in the files
    }
    return {"betas": [_BETA], "context_management": {"edits": [edit]}}


def thinking_of(config: Config) -> dict[str, Any] | None:
    """The setting in the API's form, None for the model's own way; `ConfigError` where the API would refuse it."""
    match config.thinking:
        case "auto":
            return None
        case "off":
            return {"type": "disabled"}
        case "adaptive":
            return {"type": "adaptive", "display": "summarized"}  # people watch
        case budget if budget.isdecimal() and _LEAST_THINKING <= int(budget) < config.max_tokens:
            return {"type": "enabled", "budget_tokens": int(budget)}
    raise ConfigError(
        f"--thinking {config.thinking} is none: auto, off, adaptive, or {_LEAST_THINKING} tokens or more, but less than "
        f"--max-tokens {config.max_tokens}"
    )


def _in_words(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For a model or a place that knows no such blocks: the API's summaries as text."""
    said = [{**message, "content": [*map(_in_word, message["content"])]} for message in messages]
    return [{**message, "content": kept} for message in said if (kept := [*filter(None, message["content"])])]


def _in_word(block: dict[str, Any]) -> dict[str, Any] | None:
    if not is_summary(block):
        return block
    return {"type": "text", "text": block["content"]} if block.get("content") else None


def _marked(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was asked last and the time before is marked: the one is found in the cache, the other is put there."""
    said = [number for number, message in enumerate(messages) if message["role"] == "user"][-2:]
    return [_mark(message) if number in said else message for number, message in enumerate(messages)]


def _mark(message: dict[str, Any]) -> dict[str, Any]:
    *blocks, last = message["content"]
    return {**message, "content": [*blocks, {**last, **_CACHED}]}
