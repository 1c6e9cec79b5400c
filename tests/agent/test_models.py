"""The SDK's clients, and its errors as ours."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, get_args

import anthropic
import msgspec
import pytest
import trio

from daemon.agent.models import SCRIPTED, open_models
from daemon.agent.tools import definitions
from daemon.config import Config
from daemon.errors import CallerError, ConfigError
from daemon.testing import test_config as make_config
from tests.agent.stage import open_stage

ASK = {"model": "claude-x", "max_tokens": 10, "messages": [{"role": "user", "content": "hi"}]}


class Edge:
    """A server that answers every request by one error, and keeps what it was asked."""

    def __init__(self, status: int, headers: str = "") -> None:
        self.requests: list[tuple[bytes, dict[str, Any]]] = []
        self.url = ""
        self._status = status
        self._headers = headers

    async def answer(self, stream: trio.SocketStream) -> None:
        async with stream:
            data = b""
            while True:
                head, found, body = data.partition(b"\r\n\r\n")
                lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:]) if found else {}
                if found and len(body) >= int(lines[b"content-length"]):
                    break
                data += await stream.receive_some(65536)
            self.requests.append((head, msgspec.json.decode(body)))
            error = b'{"type": "error", "error": {"type": "some_error", "message": "no"}}'
            head = f"HTTP/1.1 {self._status} No\r\nConnection: close\r\n{self._headers}Content-Length: {len(error)}\r\n\r\n"
            await stream.send_all(head.encode() + error)


@asynccontextmanager
async def open_edge(status: int, headers: str = "") -> AsyncIterator[Edge]:
    edge = Edge(status, headers)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, edge.answer, 0, host="127.0.0.1"))
        edge.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        with trio.fail_after(20):
            yield edge
        nursery.cancel_scope.cancel()


async def test_model_is_asked_with_the_key_at_the_configured_place(tmp_path):
    async with open_edge(400) as edge:
        config = make_config(tmp_path, anthropic_api_key="sk-test", anthropic_base_url=edge.url)
        async with open_models(config) as models:
            client = await models.client("claude-x")
            with pytest.raises(anthropic.BadRequestError):
                await client.messages.create(**ASK, tools=definitions())
        [(head, body)] = edge.requests
        assert head.startswith(b"POST /v1/messages ")
        assert b"sk-test" in head
        assert body["tools"] == list(definitions())


async def test_sdk_tries_nothing_again_by_itself(tmp_path):
    async with open_edge(529, "retry-after-ms: 1\r\n") as edge:
        config = make_config(tmp_path, anthropic_api_key="k", anthropic_base_url=edge.url)
        async with open_models(config) as models:
            client = await models.client("claude-x")
            with pytest.raises(anthropic.APIStatusError):
                await client.messages.create(**ASK)
        assert len(edge.requests) == 1


async def test_one_client_serves_all_models_of_a_place(tmp_path):
    async with open_models(make_config(tmp_path, anthropic_api_key="k")) as models:
        one, other, scripted, again = None, None, None, None
        async with trio.open_nursery() as nursery:

            async def first() -> None:
                nonlocal one, scripted
                one, scripted = await models.client("claude-x"), await models.client(SCRIPTED)

            async def second() -> None:
                nonlocal other, again
                again, other = await models.client(SCRIPTED), await models.client("claude-y")

            nursery.start_soon(first)
            nursery.start_soon(second)
        assert one is other
        assert scripted is again
        assert one is not scripted


async def test_proxy_of_the_environment_is_not_asked_for_the_scripted_model(tmp_path, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    async with open_stage(tmp_path, '[[turn]]\n[[turn.step]]\ntext = "hi"') as stage, stage.play() as play:
        await play.prompt("hello")
        assert play.of("turn_complete")[0]["stop_reason"] == "end_turn"


async def test_scripted_model_is_gone_with_its_daemon(tmp_path):
    async with open_models(make_config(tmp_path)) as models:
        url = str((await models.client(SCRIPTED)).base_url)
    port = int(url.rstrip("/").rsplit(":", 1)[1])
    with pytest.raises(OSError):
        await trio.open_tcp_stream("127.0.0.1", port)


async def test_session_without_a_key_is_refused_unless_it_is_scripted(tmp_path):
    async with open_models(make_config(tmp_path)) as models:
        models.refuse_unusable(SCRIPTED)
        with pytest.raises(CallerError) as refused:
            models.refuse_unusable("claude-x")
        assert (refused.value.code, refused.value.status) == ("model_unavailable", 503)
        assert "ANTHROPIC_API_KEY" in refused.value.detail
    async with open_models(make_config(tmp_path, anthropic_api_key="k")) as models:
        models.refuse_unusable("claude-x")


async def test_bad_script_is_found_at_the_start(tmp_path):
    (tmp_path / "bad.toml").write_text("name = 3")
    with pytest.raises(ExceptionGroup) as group:
        async with open_models(make_config(tmp_path, script=tmp_path / "bad.toml")):
            pass
    assert group.group_contains(ConfigError)


def test_default_model_is_known_to_the_sdk():
    named, _ = get_args(anthropic.types.Model)
    assert Config().model in get_args(named)


async def test_system_file_that_cannot_be_read_is_found_at_the_start(tmp_path):
    with pytest.raises(ExceptionGroup) as group:
        async with open_models(make_config(tmp_path, system_file=tmp_path / "none")):
            pass
    assert group.group_contains(ConfigError, match="--system-file")
