"""What is answered before the framework: the same as the framework's own answer, and nothing that is not plain."""

from contextlib import asynccontextmanager

import msgspec
import pytest
import trio

from daemon.api.app import build_app
from daemon.api.hot import Hot
from daemon.sessions.registry import Asked
from daemon.testing import open_test_daemon
from tests.api.calls import head, port_of, read_until
from tests.sessions.house import journaled_until, open_sessions, write_script

LOCAL = [(b"host", b"127.0.0.1:8000"), (b"user-agent", b"x")]
WORD = '[[turn]]\n[[turn.step]]\ntext = "Hello."'


def scope_of(path, method="GET", query=b"", headers=LOCAL, peer="127.0.0.1"):
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "root_path": "",
        "headers": headers,
        "client": (peer, 50000),
        "server": ("127.0.0.1", 8000),
        "extensions": {},
        "state": {},
    }


async def asked(app, scope):
    """Status, headers and body of an answer."""
    said = []
    done = trio.Event()

    async def receive():
        if said or done.is_set():
            await trio.sleep_forever()
        done.set()
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        said.append(message)

    with trio.fail_after(5):
        await app(scope, receive, send)
    headers = {name.lower(): value for name, value in said[0]["headers"]}
    return said[0]["status"], headers, b"".join(message.get("body", b"") for message in said[1:])


class Counted:
    """The framework, and how often it was asked."""

    def __init__(self, app):
        self.app, self.times = app, 0

    async def __call__(self, scope, receive, send):
        self.times += 1
        await self.app(scope, receive, send)


@asynccontextmanager
async def both(tmp_path, **settings):
    """The framework's app, and the same with what is hot in front of it."""
    async with open_sessions(tmp_path, script=write_script(tmp_path, WORD), **settings) as registry:
        await registry.chat(Asked(message="hi", session_id="abc"))
        await journaled_until(registry, "abc", "ready_for_input")  # nothing of it changes any more
        framework = Counted(build_app(registry, registry.config))
        yield framework, Hot(framework, registry, registry.config)


def without_clock(body):
    value = msgspec.json.decode(body)
    return {name: value[name] for name in value if name != "uptime_seconds"}


@pytest.mark.parametrize("path", ["/api/sessions/abc", "/health"])
async def test_answer_is_the_frameworks_own(tmp_path, path):
    async with both(tmp_path) as (framework, hot):
        status, headers, body = await asked(hot, scope_of(path))
        assert framework.times == 0
        theirs = await asked(framework, scope_of(path))
        assert (status, headers.keys()) == (theirs[0], theirs[1].keys())
        for name in headers.keys() - {b"content-length"}:
            assert headers[name] == theirs[1][name], name
        assert headers[b"content-length"] == b"%d" % len(body)
        assert without_clock(body) == without_clock(theirs[2])


FOREIGN = [(b"host", b"evil.example"), (b"user-agent", b"x")]


@pytest.mark.parametrize(
    ("scope", "status"),
    [
        (scope_of("/api/sessions/abc", query=b"wait=0"), 200),
        (scope_of("/api/sessions/nobody"), 404),
        (scope_of("/api/sessions/"), 404),
        (scope_of("/api/sessions/abc/events"), 200),
        (scope_of("/api/sessions/abc", method="HEAD"), 200),
        (scope_of("/health", headers=FOREIGN), 403),
        (scope_of("/api/sessions/abc", headers=FOREIGN), 403),
        (scope_of("/api/sessions/abc", headers=[*LOCAL, (b"origin", b"http://evil.example")]), 403),
        (scope_of("/api/sessions/abc", headers=[*LOCAL, (b"x-forwarded-for", b"10.0.0.1")]), 401),
        (scope_of("/api/sessions/abc", peer="10.0.0.1"), 401),
        (scope_of("/api/sessions/abc", headers=[*LOCAL, (b"content-length", b"0")]), 200),
        (scope_of("/openapi.json"), 200),
    ],
    ids=lambda value: f"{value['path']}" if isinstance(value, dict) else str(value),
)
async def test_what_is_not_plain_is_the_frameworks(tmp_path, scope, status):
    async with both(tmp_path) as (framework, hot):
        assert (await asked(hot, scope))[0] == status
        assert framework.times == 1


async def test_daemon_that_lets_other_origins_in_leaves_all_to_the_framework(tmp_path):
    async with both(tmp_path, allow_origin=("https://page.example",)) as (framework, hot):
        headers = [*LOCAL, (b"origin", b"https://page.example")]
        _, answered, _ = await asked(hot, scope_of("/health", headers=headers))
        assert answered[b"access-control-allow-origin"] == b"https://page.example"
        assert framework.times == 1


# --- on a connection


@asynccontextmanager
async def connection(tmp_path, **settings):
    """A daemon with a session whose turn is over, and a connection to its API."""
    async with open_test_daemon(tmp_path, script=write_script(tmp_path, WORD), **settings) as daemon:
        await daemon.registry.chat(Asked(message="hi", session_id="abc"))
        await journaled_until(daemon.registry, "abc", "ready_for_input")
        with trio.fail_after(10):
            async with await trio.open_tcp_stream("127.0.0.1", port_of(daemon)) as stream:
                yield daemon, stream


async def answered(stream, request):
    """Status line, headers in order and body of one answer."""
    await stream.send_all(request)
    data = await read_until(stream, b"}")
    top, _, body = data.partition(b"\r\n\r\n")
    status, *lines = top.split(b"\r\n")
    return status, {name.lower(): value for name, value in (line.split(b": ", 1) for line in lines)}, body


@pytest.fixture
def framework_calls(monkeypatch):
    """How often Hypercorn was handed a request of a connection."""
    calls = []
    original = Hot.__call__

    async def counted(self, scope, receive, send):
        calls.append(scope["path"])
        await original(self, scope, receive, send)

    monkeypatch.setattr(Hot, "__call__", counted)
    return calls


@pytest.mark.parametrize("path", ["/api/sessions/abc", "/health"])
async def test_answer_on_the_connection_is_hypercorns_own(tmp_path, path, framework_calls):
    async with connection(tmp_path) as (_, stream):
        ours = await answered(stream, head("GET", path))
        assert framework_calls == []
        theirs = await answered(stream, head("GET", path, "Content-Length: 0"))
        assert framework_calls == [path]
        assert ours[0].rstrip() == theirs[0].rstrip() == b"HTTP/1.1 200"
        for headers in (ours[1], theirs[1]):
            assert headers.pop(b"date").endswith(b" GMT")
            headers.pop(b"content-length")
        assert ours[1] == theirs[1]
        assert without_clock(ours[2]) == without_clock(theirs[2])


async def test_requests_that_came_together_are_answered_in_order_across_the_hand_over(tmp_path, framework_calls):
    async with connection(tmp_path) as (_, stream):
        health, nothing = head("GET", "/health"), head("GET", "/nope")
        await stream.send_all(health + head("GET", "/api/sessions/abc") + nothing + health + nothing[:20])
        data = b""
        while data.count(b"HTTP/1.1 ") < 4 or not data.endswith(b"}"):
            data += await stream.receive_some(65536)
        await stream.send_all(nothing[20:])
        assert [part[:3] for part in data.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200", b"404", b"200"]
        assert (await read_until(stream, b"}")).startswith(b"HTTP/1.1 404")
        assert framework_calls == ["/nope", "/health", "/nope"]


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (head("GET", "/api/sessions/nobody"), b"404"),
        (head("GET", "/api/sessions/abc?wait=0"), b"200"),
        (head("GET", "/api/sessions/ab%63"), b"200"),
        (head("HEAD", "/health") + head("GET", "/nope"), b"200"),
        (head("GET", "/health", "Origin: http://evil.example"), b"403"),
        (b"GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n", b"403"),
        (b"GET /health HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n", b"200"),
        (b"GET /health HTTP/1.1\r\n\r\n", b"400"),
        (b"garbage\r\n\r\n", b"400"),
    ],
    ids=str,
)
async def test_what_is_not_plain_on_the_connection_is_hypercorns(tmp_path, request_bytes, status):
    async with connection(tmp_path) as (_, stream):
        await stream.send_all(request_bytes)
        assert (await stream.receive_some(65536)).split(b" ", 2)[1] == status


async def test_head_that_comes_in_pieces_is_hypercorns(tmp_path, framework_calls):
    async with connection(tmp_path) as (_, stream):
        request = head("GET", "/health")
        await stream.send_all(request[:10])
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert (await answered(stream, request[10:]))[0].startswith(b"HTTP/1.1 200")
        assert framework_calls == ["/health"]


async def test_connection_ends_where_the_client_wants_it(tmp_path, framework_calls):
    async with connection(tmp_path) as (_, stream):
        _, headers, _ = await answered(stream, head("GET", "/health", "Connection: close"))
        assert headers[b"connection"].lower() == b"close"
        assert await stream.receive_some(1) == b""
        assert framework_calls == []


async def test_client_of_http_1_0_is_hypercorns(tmp_path, framework_calls):
    async with connection(tmp_path) as (_, stream):
        await stream.send_all(b"GET /health HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
        assert (await stream.receive_some(65536)).split(b" ", 2)[1] == b"200"
        assert framework_calls == ["/health"]
