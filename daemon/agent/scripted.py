"""The scripted model: a loopback HTTP server that speaks the Messages API's stream, so that the real SDK talks to it.

What it says comes from a script (script.py); it estimates four characters to a token. Faults break the stream on the wire.
"""

import secrets
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from typing import Any

import h11
import msgspec
import trio

from daemon.agent.script import Fault, Script, Step, answer
from daemon.serving import Server, open_listeners, port_of

SCRIPTED = "scripted"  # the name of the model
_MAX_REQUEST = 64 << 20  # bytes: a long conversation with its files
_CHARACTERS_PER_TOKEN = 4
_PING_INTERVAL = 0.05  # s
_SSE = [("Content-Type", "text/event-stream"), ("Cache-Control", "no-cache"), ("Connection", "close")]
_JSON = [("Content-Type", "application/json"), ("Connection", "close")]
_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}
Event = tuple[dict[str, Any], int]  # the event, and how many characters it says


class ScriptedModel:
    """Answers `POST /v1/messages`."""

    def __init__(self, script: Script, pace: float) -> None:
        self._script = script
        self._pace = pace  # 0: no waits
        self._failed: Counter[bytes] = Counter()

    async def handle(self, stream: trio.SocketStream) -> None:
        """One connection, one request."""
        connection = h11.Connection(h11.SERVER)
        body = b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some(65536))
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > _MAX_REQUEST:
                    return
            elif isinstance(event, h11.EndOfMessage):
                break
            elif isinstance(event, h11.ConnectionClosed):
                return

        async def send(*events: h11.Event) -> None:
            await stream.send_all(b"".join(connection.send(event) or b"" for event in events))

        try:
            request = msgspec.json.decode(body)
            step = answer(self._script, request["messages"])
        except (msgspec.DecodeError, KeyError, TypeError):
            await send(
                h11.Response(status_code=400, headers=_JSON),
                h11.Data(data=_error("invalid_request_error")),
                h11.EndOfMessage(),
            )
            return
        told = _tokens(_bare(request["messages"]))
        if self._script.context_window is not None and told > self._script.context_window:
            message = f"prompt is too long: {told} tokens > {self._script.context_window} maximum"
            await send(
                h11.Response(status_code=400, headers=_JSON),
                h11.Data(data=_error("invalid_request_error", message)),
                h11.EndOfMessage(),
            )
            return
        fault = self._fault(step.fault, request["messages"])
        if fault is not None and fault.kind == "status":
            error = _error(_ERRORS.get(fault.status, "api_error"))
            headers = _JSON + ([] if fault.retry_after is None else [("Retry-After", f"{fault.retry_after:g}")])
            await send(
                h11.Response(status_code=fault.status, headers=headers), h11.Data(data=error), h11.EndOfMessage()
            )
            return
        await send(h11.Response(status_code=200, headers=_SSE))
        await self._wait(self._script.pace.first_delta_ms / 1000)
        events = list(_events(step, request, self._script.pace.chunk_characters))
        breaks_at = None if fault is None else _place(fault, events)
        for number, (said, characters) in enumerate(events):
            if fault is not None and number == breaks_at:
                await self._break(fault, stream, send)
                return
            await send(h11.Data(data=_sse(said)))
            await self._wait(characters / self._script.pace.characters_per_second)
        await send(h11.EndOfMessage())

    def _fault(self, fault: Fault | None, messages: list[dict[str, Any]]) -> Fault | None:
        if fault is None:
            return None
        request = sha256(msgspec.json.encode(messages)).digest()  # the same for every try
        if self._failed[request] >= fault.times:
            return None
        self._failed[request] += 1
        return fault

    async def _wait(self, seconds: float) -> None:
        if self._pace:
            await trio.sleep(seconds / self._pace)

    async def _break(self, fault: Fault, stream: trio.SocketStream, send: Any) -> None:
        match fault.kind:
            case "cut":
                await send(h11.EndOfMessage())
            case "reset":
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                await trio.aclose_forcefully(stream)
            case "error":
                await send(
                    h11.Data(data=b"event: error\ndata: " + _error("overloaded_error") + b"\n\n"), h11.EndOfMessage()
                )
            case "malformed":
                await send(
                    h11.Data(data=b'event: content_block_delta\ndata: {"type": "content_block_del\n\n'),
                    h11.EndOfMessage(),
                )
            case "silence":
                while await stream.receive_some(65536):  # until the other side gives up
                    pass
            case "pings":
                with suppress(trio.BrokenResourceError):
                    while True:
                        await send(h11.Data(data=b'event: ping\ndata: {"type": "ping"}\n\n'))
                        await trio.sleep(_PING_INTERVAL)


def _events(step: Step, request: dict[str, Any], chunk: int) -> Iterator[Event]:
    """The stream's events for one step."""
    tokens = 0
    message: dict[str, Any] = {
        "id": f"msg_{secrets.token_hex(12)}",
        "type": "message",
        "role": "assistant",
        "content": [],
        "model": request.get("model"),
    }
    usage = {"input_tokens": _tokens(_bare(request["messages"])), "output_tokens": 1}
    yield (
        {"type": "message_start", "message": {**message, "stop_reason": None, "stop_sequence": None, "usage": usage}},
        0,
    )
    index = -1
    for index, (start, kind, key, text) in enumerate(_blocks(step)):
        tokens += _tokens(text)
        yield {"type": "content_block_start", "index": index, "content_block": start}, 0
        for at in range(0, len(text), chunk):
            part = text[at : at + chunk]
            yield {"type": "content_block_delta", "index": index, "delta": {"type": kind, key: part}}, len(part)
        if kind == "thinking_delta":
            signature = {"type": "signature_delta", "signature": "c2NyaXB0ZWQ="}
            yield {"type": "content_block_delta", "index": index, "delta": signature}, 0
        yield {"type": "content_block_stop", "index": index}, 0
    reason = step.stop_reason or ("tool_use" if step.tool else "end_turn")
    yield (
        {
            "type": "message_delta",
            "delta": {"stop_reason": reason, "stop_sequence": None},
            "usage": {"output_tokens": tokens, **step.usage},
        },
        0,
    )
    yield {"type": "message_stop"}, 0


def _place(fault: Fault, events: list[Event]) -> int:
    """How many events are sent before it: half of the text's or of the tool input's, or all but the last."""
    kinds = {"text": "text_delta", "tool": "input_json_delta"}
    if fault.at in kinds:
        deltas = [
            number for number, (event, _) in enumerate(events) if event.get("delta", {}).get("type") == kinds[fault.at]
        ]
        return deltas[len(deltas) // 2] if deltas else fault.after
    return len(events) - 1 if fault.at == "stop" else fault.after


def _blocks(step: Step) -> Iterator[tuple[dict[str, Any], str, str, str]]:
    if step.thinking:
        yield {"type": "thinking", "thinking": "", "signature": ""}, "thinking_delta", "thinking", step.thinking
    if step.text:
        yield {"type": "text", "text": ""}, "text_delta", "text", step.text
    for call in step.tool:
        start = {"type": "tool_use", "id": f"toolu_{secrets.token_hex(12)}", "name": call.name, "input": {}}
        text = msgspec.json.encode(call.input).decode()
        cut = step.cut_tool and call is step.tool[-1]
        yield start, "input_json_delta", "partial_json", text[: len(text) // 2] if cut else text


def _bare(messages: list[dict[str, Any]]) -> str:
    """Without the marks of the prompt cache, which are no text."""
    return msgspec.json.encode(messages).decode().replace(',"cache_control":{"type":"ephemeral"}', "")


def _tokens(text: str) -> int:
    return -(-len(text) // _CHARACTERS_PER_TOKEN)


def _sse(event: dict[str, Any]) -> bytes:
    name: str = event["type"]
    return b"event: " + name.encode() + b"\ndata: " + msgspec.json.encode(event) + b"\n\n"


def _error(kind: str, message: str = "the script says so") -> bytes:
    return msgspec.json.encode({"type": "error", "error": {"type": kind, "message": message}})


async def open_scripted_model(
    script: Script, pace: float, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve a script on a free loopback port until cancelled; started with its base URL."""
    listeners = await open_listeners("127.0.0.1", 0, 128)
    server = Server(ScriptedModel(script, pace).handle, max_connections=1000, user_timeout=30)
    async with trio.open_nursery() as nursery:
        url = f"http://127.0.0.1:{port_of(listeners)}"  # asked before a cancellation may have closed them
        await nursery.start(server.serve, listeners)
        task_status.started(url)
