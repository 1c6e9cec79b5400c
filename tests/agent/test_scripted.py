"""The scripted model on the wire."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import httpx2
import msgspec
import pytest
import trio
import trio.testing

from daemon.agent.script import Pace, Script, Step, ToolCall, Turn
from daemon.agent.scripted import ScriptedModel, open_scripted_model
from tests.support import api

HELLO = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


def script(*steps: Step, **pace: Any) -> Script:
    return Script("test", [Turn([*steps])], pace=Pace(**pace))


@asynccontextmanager
async def serving(script: Script, pace: float = 0) -> AsyncIterator[httpx2.AsyncClient]:
    async with trio.open_nursery() as nursery:
        url = await nursery.start(open_scripted_model, script, pace)
        with trio.fail_after(10):
            async with api(url) as client:
                yield client
        nursery.cancel_scope.cancel()


def events(body: str) -> list[dict[str, Any]]:
    found = []
    for block in body.strip().split("\n\n"):
        name, data = block.split("\n")
        event = msgspec.json.decode(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        found.append(event)
    return found


async def test_step_is_streamed_as_the_api_would():
    step = Step(thinking="hm", text="abcde", tool=[ToolCall("write", {"a": "b"})])
    async with serving(script(step, chunk_characters=4)) as client:
        answer = await client.post("/v1/messages", json=HELLO)
    assert answer.headers["content-type"] == "text/event-stream"
    found = events(answer.text)
    assert [event["type"].removeprefix("content_block_") for event in found] == [
        "message_start",
        "start", "delta", "delta", "stop",
        "start", "delta", "delta", "stop",
        "start", "delta", "delta", "delta", "stop",
        "message_delta", "message_stop",
    ]  # fmt: skip
    assert found[0]["message"]["model"] == "m"
    assert [event["index"] for event in found if "index" in event] == [0] * 4 + [1] * 4 + [2] * 5
    assert found[3]["delta"]["type"] == "signature_delta"
    assert [found[at]["delta"]["text"] for at in (6, 7)] == ["abcd", "e"]
    assert "".join(found[at]["delta"]["partial_json"] for at in (10, 11, 12)) == '{"a":"b"}'
    assert found[-2]["delta"]["stop_reason"] == "tool_use"
    assert found[-2]["usage"]["output_tokens"] == 1 + 2 + 3


@pytest.mark.parametrize(
    ("step", "reason"),
    [(Step(text="a"), "end_turn"), (Step(tool=[ToolCall("a")]), "tool_use"), (Step(stop_reason="refusal"), "refusal")],
)
async def test_stop_reason_follows_from_the_step(step, reason):
    async with serving(script(step)) as client:
        found = events((await client.post("/v1/messages", json=HELLO)).text)
    assert found[-2]["delta"]["stop_reason"] == reason


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"messages": 3}', b'{"messages": [{}]}', b'"text"'])
async def test_request_that_is_none_is_refused_and_the_next_one_answered(body):
    async with serving(script(Step(text="a"))) as client:
        answer = await client.post("/v1/messages", content=body)
        assert answer.status_code == 400
        assert answer.json()["error"]["type"] == "invalid_request_error"
        assert (await client.post("/v1/messages", json=HELLO)).status_code == 200


async def play(pace: float, **settings: Any) -> float:
    """How long one answer takes, in memory."""
    near, far = trio.testing.memory_stream_pair()
    model = ScriptedModel(script(Step(text="x" * 100), **settings), pace)
    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(model.handle, near)
        body = msgspec.json.encode(HELLO)
        await far.send_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        data = b""
        while b"message_stop" not in data:
            data += await far.receive_some()
    return trio.current_time() - begun


async def test_pace_zero_waits_for_nothing(autojump_clock):
    assert await play(0, first_delta_ms=10_000, characters_per_second=0.001) == 0


@pytest.mark.parametrize("pace", [1, 2, 0.5])
async def test_pace_scales_every_wait(autojump_clock, pace):
    took = await play(pace, first_delta_ms=1000, characters_per_second=50, chunk_characters=7)
    assert took == pytest.approx(3 / pace)


async def test_silent_connection_is_let_go_when_the_other_side_gives_up():
    text = {"text": "a", "fault": {"kind": "silence"}}
    silent = msgspec.convert({"name": "test", "turn": [{"step": [text]}]}, Script)
    ended = trio.Event()

    async def handle(stream: trio.SocketStream) -> None:
        await ScriptedModel(silent, 0).handle(stream)
        ended.set()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
        with trio.fail_after(10):
            async with api(f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}") as client:
                async with client.stream("POST", "/v1/messages", json=HELLO) as answer:
                    assert answer.status_code == 200
            await ended.wait()
        nursery.cancel_scope.cancel()
