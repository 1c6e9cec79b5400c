"""One streamed answer of the model, put together from the API's raw events; no waiting here."""

from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from daemon.journal.present import Kind
from daemon.sessions.record import Usage

if TYPE_CHECKING:
    from anthropic.types import RawMessageStreamEvent


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
        self.complete = False  # the API said that it is over; anything else was cut
        self._blocks: dict[int, dict[str, Any]] = {}
        self._closed: set[int] = set()
        self._json: dict[int, list[str]] = {}
        self._sink = sink

    def feed(self, event: "RawMessageStreamEvent") -> None:
        """Take the next event. A tool's input that is not JSON raises `msgspec.DecodeError`."""
        match event.type:
            case "message_start":
                self._count(event.message.usage)
            case "content_block_start":
                block = event.content_block.model_dump(exclude_none=True)
                self._blocks[event.index] = block
                if block["type"] in {"text", "thinking"}:
                    self._sink.opened(event.index, block["type"])
                elif block["type"] == "tool_use":
                    self._json[event.index] = []
            case "content_block_delta":
                self._grow(self._blocks[event.index], event.index, event.delta)
            case "content_block_stop":
                self._close(event.index)
            case "message_delta":
                self.stop_reason = event.delta.stop_reason
                self._count(event.usage)
            case "message_stop":
                self.complete = True

    def content(self) -> list[dict[str, Any]]:
        """What can be said back to the API: whole blocks, and the text of one that was cut."""
        kept = []
        for index, block in sorted(self._blocks.items()):
            # Thinking without its signature, or half a tool call, would be refused.
            if (index in self._closed or block["type"] == "text") and block.get("text") != "":
                kept.append(block)
        return kept

    def tool_calls(self) -> list[dict[str, Any]]:
        """The complete tool calls, in order."""
        return [block for block in self.content() if block["type"] == "tool_use"]

    def _grow(self, block: dict[str, Any], index: int, delta: Any) -> None:
        match delta.type:
            case "text_delta":
                block["text"] += delta.text
                self._sink.grew(delta.text)
            case "thinking_delta":
                block["thinking"] += delta.thinking
                self._sink.grew(delta.thinking)
            case "signature_delta":
                block["signature"] = delta.signature
            case "input_json_delta":
                self._json[index].append(delta.partial_json)

    def _close(self, index: int) -> None:
        block = self._blocks[index]
        if block["type"] == "tool_use":
            text = "".join(self._json.pop(index))
            if text:
                block["input"] = msgspec.json.decode(text)
        elif block["type"] in {"text", "thinking"}:
            self._sink.closed()
        self._closed.add(index)

    def _count(self, usage: Any) -> None:
        for name in self.usage.__struct_fields__:
            if (count := getattr(usage, name, None)) is not None:  # each event says the total so far
                setattr(self.usage, name, count)
