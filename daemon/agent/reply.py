"""One streamed answer of the model, put together from the API's raw events; no waiting here."""

from typing import Any, Protocol

import msgspec

from daemon.agent.compaction import is_summary
from daemon.journal.present import Kind
from daemon.sessions.record import Usage

# The model had no more room: what it was saying may have been cut anywhere.
OUT_OF_ROOM = {"max_tokens", "model_context_window_exceeded"}


class Sink(Protocol):
    """Who is told of the blocks as they come."""

    def opened(self, index: int, kind: Kind) -> None:
        """Text or thinking begins."""

    def grew(self, text: str) -> None:
        """There is more of it."""

    def closed(self) -> None:
        """It is complete."""


class Reply:
    """The answer so far."""

    def __init__(self, sink: Sink) -> None:
        self.usage = Usage()
        self.stop_reason: str | None = None
        self.growing = False  # it said more of a block just now
        self.sums_up = False  # it is summing up what was said before, which comes as a whole
        self.complete = False  # the API said that it is over; anything else was cut
        self.cut: set[str] = set()  # ids of calls whose input was cut: to be answered, not to be run
        self._blocks: dict[int, dict[str, Any]] = {}
        self._closed: set[int] = set()
        self._json: dict[int, list[str]] = {}
        self._unreadable: dict[int, msgspec.DecodeError] = {}  # tools' inputs that are no JSON object
        self._said: dict[str, int] = {}  # the usage, as the API counts it
        self._summing: list[dict[str, Any]] = []  # what summing up took besides, each time
        self._sink = sink

    def feed(self, event: dict[str, Any]) -> None:
        """Take the next event. A tool's input that is no JSON object raises `msgspec.DecodeError` at the end of the answer."""
        self.growing = event["type"] == "content_block_delta"
        match event["type"]:
            case "message_start":
                self._count(event["message"]["usage"])
            case "content_block_start":
                self._open(event["index"], event["content_block"])
            case "content_block_delta":
                self._grow(self._blocks[event["index"]], event["index"], event["delta"])
            case "content_block_stop":
                self._close(event["index"])
            case "message_delta":
                self.stop_reason = event["delta"]["stop_reason"]
                self._count(event["usage"])
            case "message_stop":
                self._end()

    def content(self) -> list[dict[str, Any]]:
        """What can be said back to the API: whole blocks, and the text of one that was cut."""
        return [block for index, block in sorted(self._blocks.items()) if self._can_be_said(index, block)]

    def tool_calls(self) -> list[dict[str, Any]]:
        """The tool calls, in order; those in `cut` without their input."""
        return [block for block in self.content() if block["type"] == "tool_use"]

    def _can_be_said(self, index: int, block: dict[str, Any]) -> bool:
        """The API refuses half a tool call, thinking without its signature, and text that is nothing but space."""
        match block["type"]:
            case "text":
                return bool(block["text"].strip())
            case "thinking":
                return bool(block.get("signature"))
        return index in self._closed

    def _end(self) -> None:
        if self.stop_reason in OUT_OF_ROOM:
            last = max(self._blocks, default=-1)
            for index, block in self._blocks.items():
                nothing = index == last and block.get("input") == {}  # it began, and got no further
                if block["type"] == "tool_use" and (nothing or index in self._unreadable or index not in self._closed):
                    self.cut.add(block["id"])
                    block["input"] = {}
                    self._closed.add(index)
        else:
            for error in self._unreadable.values():
                raise error
        self.complete = True

    def _open(self, index: int, start: dict[str, Any]) -> None:
        block = self._blocks[index] = {key: value for key, value in start.items() if value is not None}
        self.sums_up = is_summary(block)
        if block["type"] in {"text", "thinking"}:
            self._sink.opened(index, block["type"])
            self._say(block, block["type"], block.pop(block["type"], ""))
        elif block["type"] == "tool_use":
            self._json[index] = []

    def _grow(self, block: dict[str, Any], index: int, delta: dict[str, Any]) -> None:
        match delta["type"]:
            case "text_delta":
                self._say(block, "text", delta["text"])
            case "thinking_delta":
                self._say(block, "thinking", delta["thinking"])
            case "signature_delta":
                block["signature"] = delta["signature"]
            case "input_json_delta":
                self._json[index].append(delta["partial_json"])
            case _ if block["type"] not in {"text", "thinking", "tool_use"}:  # as with a summary: whole values
                block |= {key: value for key, value in delta.items() if key != "type" and value is not None}

    def _say(self, block: dict[str, Any], key: str, text: str) -> None:
        text = text.encode(errors="replace").decode()  # half a surrogate pair could not be written down
        block[key] = block.get(key, "") + text
        if text:
            self._sink.grew(text)

    def _close(self, index: int) -> None:
        self.sums_up = False
        block = self._blocks[index]
        if block["type"] == "tool_use":
            text = "".join(self._json.pop(index))
            try:
                block["input"] = msgspec.json.decode(text, type=dict[str, Any]) if text else block["input"]
            except msgspec.DecodeError as error:
                self._unreadable[index] = error
                return
        elif block["type"] in {"text", "thinking"}:
            self._sink.closed()
        self._closed.add(index)

    def _count(self, usage: dict[str, Any]) -> None:
        """Each event says the total so far, of which summing up is no part."""
        self._said |= {name: usage[name] for name in Usage.__struct_fields__ if usage.get(name) is not None}
        if iterations := usage.get("iterations"):
            self._summing = [one for one in iterations if one["type"] == "compaction"]
        for name in Usage.__struct_fields__:
            setattr(self.usage, name, sum(one.get(name) or 0 for one in (self._said, *self._summing)))
