"""One reply: tried again where that may help, its half text withdrawn. (faults.py has what goes wrong, place by place.)"""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import msgspec
import pytest
import trio

from daemon.agent.asking import BlockSink
from daemon.agent.reply import Reply
from daemon.agent.script import load_script
from daemon.agent.scripted import ScriptedModel
from daemon.agent.turn import Turn
from tests.agent.stage import Play, check_conversation, open_stage
from tests.support import kinds

# Where a stream breaks, the SDK drops its generators before they have ended, of which Trio warns.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator '(anthropic|httpx2|httpcore2):ResourceWarning")

SCRIPT = """
[pace]
chunk_characters = 4
[[turn]]
[[turn.step]]
thinking = "hm hm"
text = "abcdefghijkl"
fault = {{ {fault} }}
"""


@asynccontextmanager
async def playing(folder, fault: str, **settings: Any) -> AsyncIterator[Play]:
    settings = {"model_retries": 2, **settings}
    async with open_stage(folder, SCRIPT.format(fault=fault), **settings) as stage, stage.play() as play:
        yield play


async def test_withdrawn_blocks_are_named_and_later_ones_numbered_on(tmp_path):
    async with playing(tmp_path, 'kind = "reset", at = "text", times = 2') as play:
        events = await play.prompt("go")
        told = [(event["event"], event["data"].get("block", event["data"].get("blocks"))) for event in events]
        assert told == [
            ("turn_start", None),
            ("claude_thinking", 0), ("turn_retry", [0, 1]),
            ("claude_thinking", 2), ("turn_retry", [2, 3]),
            ("claude_thinking", 4), ("claude_text", 5), ("turn_complete", None),
        ]  # fmt: skip
        retries = play.of("turn_retry")
        assert retries[0] == {"turn": 1, "attempt": 2, "reason": "connection_error", "blocks": [0, 1]}
        assert retries[1]["attempt"] == 3
        assert "".join(delta["text"] for delta in play.of("claude_text_delta") if delta["block"] == 1) == "abcd"
        assert play.conversation.messages[-1]["content"][1:] == [{"type": "text", "text": "abcdefghijkl"}]


async def test_client_that_joins_after_a_retry_is_not_shown_what_was_withdrawn(tmp_path):
    async with playing(tmp_path, 'kind = "cut", at = "text"', retry_first=60, retry_longest=60) as play:

        async def join() -> None:
            await play.until(lambda events: "turn_retry" in kinds(events))
            assert play.present.deltas() == []
            play.agent.interrupt()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(join)
            events = await play.prompt("go")
        assert "claude_text" not in kinds(events)
        assert events[-1]["data"]["stop_reason"] == "interrupted"
        assert [message["role"] for message in play.conversation.messages] == ["user"]


async def test_interrupt_in_the_pause_before_the_next_try_is_at_once(tmp_path):
    async with playing(tmp_path, 'kind = "status", retry_after = 60') as play:

        async def interrupt() -> None:
            await play.until(lambda events: "turn_retry" in kinds(events))
            play.agent.interrupt()
            nursery.cancel_scope.deadline = trio.current_time() + 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(interrupt)
            events = await play.prompt("go")
            nursery.cancel_scope.deadline = float("inf")
        assert events[-1]["data"]["stop_reason"] == "interrupted"
        check_conversation(play.conversation.messages)


async def test_time_that_the_api_asks_for_is_waited(tmp_path):
    async with playing(tmp_path, 'kind = "status", status = 429, retry_after = 0.4') as play:
        events = await play.prompt("go")
        assert events[-1]["data"]["duration_ms"] >= 400
        assert events[-1]["data"]["stop_reason"] == "end_turn"


async def test_time_that_is_longer_than_our_patience_is_not_waited(tmp_path):
    async with playing(tmp_path, 'kind = "status", status = 429, retry_after = 60', model_patience=30) as play:
        events = await play.prompt("go")
        assert kinds(events) == ["turn_start", "agent_error", "turn_complete"]
        assert events[1]["data"]["retryable"] is True


async def test_tries_are_bounded_and_the_text_of_the_last_one_counts(tmp_path):
    async with playing(tmp_path, 'kind = "cut", at = "text", times = 9') as play:
        events = await play.prompt("go")
        assert kinds(events).count("turn_retry") == 2
        assert kinds(events)[-4:] == ["claude_thinking", "claude_text", "agent_error", "turn_complete"]
        assert events[-3]["data"] == {"turn": 1, "block": 5, "text": "abcd"}
        assert play.conversation.messages[-1]["content"] == [{"type": "text", "text": "abcd"}]


async def test_all_time_of_the_tries_is_bounded(tmp_path):
    settings = {"model_retries": 1000, "model_patience": 0.4, "retry_first": 0.05, "retry_longest": 0.05}
    async with playing(tmp_path, 'kind = "status", status = 503, times = 1000', **settings) as play:
        events = await play.prompt("go")
        assert 1 < kinds(events).count("turn_retry") < 100
        assert events[-1]["data"]["duration_ms"] < 5000
        assert events[-2]["data"]["error"].startswith("503: ")


async def test_tokens_of_a_withdrawn_try_were_used_all_the_same(tmp_path):
    async with playing(tmp_path, 'kind = "cut", at = "stop"') as play:
        await play.prompt("go")
        asked = -(-len(msgspec.json.encode(play.conversation.messages[:1])) // 4)
        assert play.usage.input_tokens == 2 * asked
        assert play.usage.output_tokens == 2 * (2 + 3)


async def test_place_where_nobody_listens_is_tried_again_and_then_said(tmp_path):
    with trio.socket.socket() as port:
        await port.bind(("127.0.0.1", 0))  # and never listens
        url = f"http://127.0.0.1:{port.getsockname()[1]}"
        async with playing(tmp_path, 'kind = "cut"', anthropic_api_key="k", anthropic_base_url=url) as play:
            play.settings.model = "claude-x"
            events = await play.prompt("go")
    assert [data["reason"] for data in play.of("turn_retry")] == ["connection_error"] * 2
    assert (events[-2]["data"]["error_type"], events[-2]["data"]["retryable"]) == ("connection_error", True)


async def test_reply_is_over_with_its_last_event_though_the_connection_stays_open(tmp_path):
    said = b"".join(
        b"data: " + msgspec.json.encode(event) + b"\n\n"
        for event in (
            {"type": "message_start", "message": {"usage": {"input_tokens": 1}}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "hi"}},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
            {"type": "message_stop"},
        )
    )

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some(65536)
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + said)
            while await stream.receive_some(65536):
                pass

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        settings = {"anthropic_api_key": "k", "anthropic_base_url": url, "model_linger": 0.1}
        async with playing(tmp_path, 'kind = "cut"', **settings) as play:
            play.settings.model = "claude-x"
            events = await play.prompt("go")
        assert kinds(events) == ["turn_start", "claude_text", "turn_complete"]
        assert events[-1]["data"]["duration_ms"] < 5000
        nursery.cancel_scope.cancel()


# --- a context that grows too long

LONG = """
context_window = {window}
[[turn]]
pattern = "build"
""" + "".join(
    f"""
[[turn.step]]
[[turn.step.tool]]
name = "write"
input = {{{{ file_path = "{number}.txt", content = "{"x" * 2000}" }}}}
"""
    for number in range(6)
)
LONG += '[[turn.step]]\ntext = "Built."\n[[turn]]\n[[turn.step]]\ntext = "Fine."\n'


async def test_context_that_is_too_long_is_shortened_and_the_turn_goes_on(tmp_path):
    script = 'name = "long"\n' + LONG.format(window=1500)
    async with open_stage(tmp_path, script) as stage, stage.play() as play:
        events = await play.prompt("build it")
        assert events[-1]["data"]["stop_reason"] == "end_turn"
        assert len(play.workspace.files()) == kinds(events).count("claude_tool_use") == 6
        retries = play.of("turn_retry")
        assert {(retry["reason"], *retry["blocks"]) for retry in retries} == {("prompt_too_long",)}
        assert play.conversation.told[0] == play.conversation.messages[0]  # the task
        check_conversation(play.conversation.told)
        whole = [
            block["input"]["content"] for message in play.kept() for block in message["content"] if "input" in block
        ]
        assert whole == ["x" * 2000] * 6  # what is kept stays whole
    async with open_stage(tmp_path, script) as stage, stage.play() as play:  # opened again
        play.turns = 1
        events = await play.prompt("more")
        assert events[-1]["data"]["stop_reason"] == "end_turn"


async def test_context_of_which_nothing_can_go_ends_the_turn(tmp_path):
    async with open_stage(tmp_path, 'name = "long"\n' + LONG.format(window=5)) as stage, stage.play() as play:
        events = await play.prompt("build it")
        assert kinds(events) == ["turn_start", "agent_error", "turn_complete"]
        assert (events[1]["data"]["error_type"], events[1]["data"]["retryable"]) == ("prompt_too_long", False)


# --- a gateway


@asynccontextmanager
async def open_gateway(folder) -> AsyncIterator[tuple[str, list[bytes]]]:
    """The scripted model where a gateway would be: its URL with a path, and the heads of what it was asked."""
    path = folder / "gateway.toml"
    path.write_text('name = "gateway"\n[[turn]]\n[[turn.step]]\ntext = "Hello."')
    model, heads = ScriptedModel(load_script(path), 0), []

    class Heard:
        def __init__(self, stream: trio.SocketStream) -> None:
            self._stream = stream

        async def receive_some(self, most: int) -> bytes:
            data = await self._stream.receive_some(most)
            heads.append(bytes(data))
            return bytes(data)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._stream, name)

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            await model.handle(Heard(stream))  # type: ignore[arg-type]

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/anthropic", heads
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("compaction", "beta"), [("auto", False), ("local", False), ("api", True)])
async def test_gateway_is_asked_by_its_path_with_the_key(tmp_path, compaction, beta):
    (tmp_path / "system.txt").write_text("Speak plainly.")
    async with open_gateway(tmp_path) as (url, heads):
        settings = {"anthropic_api_key": "sk-gate", "anthropic_base_url": url, "system_file": tmp_path / "system.txt"}
        settings |= {"compaction": compaction, "thinking": "adaptive", "max_tokens": 999}
        async with playing(tmp_path, 'kind = "cut"', **settings) as play:
            play.settings.model = "claude-x"
            events = await play.prompt("go")
            assert events[-1]["data"]["stop_reason"] == "end_turn"
            if beta:  # whether this model's context can be summed up; this gateway does not say
                assert heads.pop(0).startswith(b"GET /anthropic/v1/models/claude-x ")
            head, _, body = b"".join(heads).partition(b"\r\n\r\n")
            assert head.startswith((b"POST /anthropic/v1/messages ", b"POST /anthropic/v1/messages?beta=true "))
            sent = (head.lower() + b"\r\n").split(b"\r\n")  # how the key is sent is the SDK's: 2.13 sends it as bearer
            assert {b"x-api-key: sk-gate", b"authorization: bearer sk-gate"} & {*sent}
            assert (b"context-management-2025-06-27" in head) is beta
            asked = msgspec.json.decode(body)
            assert ("context_management" in asked) is beta
            assert (asked["model"], asked["max_tokens"]) == ("claude-x", 999)
            assert asked["thinking"]["type"] == "adaptive"
            assert "Speak plainly." in asked["system"][0]["text"]
            heads.clear()
            play.settings.system = "My own."  # of this session
            await play.prompt("again")
            asked = msgspec.json.decode(b"".join(heads[beta:]).partition(b"\r\n\r\n")[2])
            assert "My own." in asked["system"][0]["text"]
            assert "Speak plainly." not in asked["system"][0]["text"]


# --- a context that the API sums up

CAN = b'{"id": "claude-x", "type": "model", "capabilities": {"context_management": {"compact_20260112": {"supported": true}}}}'
SUMMARY = {"type": "compaction", "content": "A menu was wanted.", "encrypted_content": "opaque", "signature": "s"}
SUMMED_UP: list[dict[str, Any]] = [
    {"type": "message_start", "message": {"usage": {"input_tokens": 7, "output_tokens": 1}}},
    {
        "type": "content_block_start",
        "index": 0,
        "content_block": {"type": "compaction", "content": None, "signature": "s"},
    },
    {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "compaction_delta", "content": SUMMARY["content"], "encrypted_content": "opaque"},
    },
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": "Done."}},
    {"type": "content_block_stop", "index": 1},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn"},
        "usage": {
            "output_tokens": 3,
            "iterations": [
                {"type": "compaction", "input_tokens": 900, "output_tokens": 90},
                {"type": "message", "input_tokens": 7, "output_tokens": 3},
            ],
        },
    },
    {"type": "message_stop"},
]


@asynccontextmanager
async def open_api(pause: float = 0.0) -> AsyncIterator[tuple[str, list[tuple[bytes, dict[str, Any]]]]]:
    """An API that says of its model that it can, and does so in each answer: its URL, and what it was asked."""
    seen = []
    before, after = (
        b"".join(b"data: " + msgspec.json.encode(event) + b"\n\n" for event in events)
        for events in (SUMMED_UP[:2], SUMMED_UP[2:])
    )

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            head, body = b"", b""
            while b"\r\n\r\n" not in head:
                head += await stream.receive_some()
            head, _, body = head.partition(b"\r\n\r\n")
            announced = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            while announced is not None and len(body) < int(announced[1]):
                body += await stream.receive_some()
            seen.append((head, msgspec.json.decode(body) if body else {}))
            kind, *parts = (b"text/event-stream", before, after) if body else (b"application/json", CAN)
            length = len(b"".join(parts))
            await stream.send_all(
                b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
                % (kind, length)
            )
            for part in parts:
                await stream.send_all(part)
                await trio.sleep(pause)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}", seen
        nursery.cancel_scope.cancel()


async def test_summary_of_the_api_is_kept_and_said_back_in_the_place_of_what_it_sums_up(tmp_path):
    async with open_api() as (url, seen):
        settings = {"anthropic_api_key": "k", "anthropic_base_url": url, "compaction": "api"}
        async with playing(tmp_path, 'kind = "cut"', **settings) as play:
            play.settings.model = "claude-x"
            events = await play.prompt("build a menu")
            assert kinds(events) == ["turn_start", "claude_text", "turn_complete"]
            usage = events[-1]["data"]["usage"]
            assert (usage["input_tokens"], usage["output_tokens"]) == (907, 93)  # summing up was not for nothing
            for text in ("go on", "and on"):
                await play.prompt(text)
            said = [{"type": "text", "text": "Done."}]
            assert play.kept()[1] == {"role": "assistant", "content": [SUMMARY, *said]}
            check_conversation(play.conversation.told)
    (asked, _), *requests = seen
    assert asked.startswith(b"GET /v1/models/claude-x ")
    assert len(requests) == 3  # and it is not asked again what the model can do
    for head, body in requests:
        assert b"compact-2026-01-12" in head
        assert [edit["type"] for edit in body["context_management"]["edits"]] == ["compact_20260112"]
    messages = requests[-1][1]["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]  # the second reply had one, too
    assert messages[1]["content"] == [SUMMARY, *said]
    assert messages[2]["content"][0]["text"] == "and on"


@pytest.mark.parametrize(("usual", "patience", "retried"), [(0.5, 30.0, False), (30.0, 0.1, True)])
async def test_silence_while_the_api_sums_up_has_a_limit_of_its_own(tmp_path, usual, patience, retried):
    async with open_api(pause=0.8) as (url, _):
        settings = {"anthropic_api_key": "k", "anthropic_base_url": url, "compaction": "api"}
        settings |= {"event_deadline": usual, "summary_deadline": patience, "model_retries": 1}
        async with playing(tmp_path, 'kind = "cut"', **settings) as play:
            play.settings.model = "claude-x"
            events = await play.prompt("go")
            assert ("turn_retry" in kinds(events)) is retried
            assert events[-1]["data"]["is_error"] is retried


async def test_all_that_one_read_brings_is_shown_at_once(tmp_path):
    said = [{"type": "message_start", "message": {"usage": {"input_tokens": 1}}}]
    for index, kind in enumerate(("thinking", "text")):
        said += [
            {"type": "content_block_start", "index": index, "content_block": {"type": kind, kind: ""}},
            {"type": "content_block_delta", "index": index, "delta": {"type": f"{kind}_delta", kind: "so"}},
            {"type": "content_block_stop", "index": index},
        ]
    said += [{"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {}}, {"type": "message_stop"}]
    async with playing(tmp_path, 'kind = "cut"', delta_window=1.0) as play:
        asking, told = play.agent._asking, []
        play.journal.on_show = lambda: told.append(kinds(play.shown()))
        send, received = trio.open_memory_channel[bytes](1)
        send.send_nowait(b"".join(b"data: " + msgspec.json.encode(event) + b"\n\n" for event in said))
        send.close()
        reply = Reply(BlockSink(play.journal, asking._deltas, Turn(1)))
        await asking._read(received, reply, trio.CancelScope())
        assert reply.complete
        assert told == [["claude_thinking_delta", "claude_thinking", "claude_text_delta", "claude_text"]]
