"""What is answered before the framework: the same as the framework's own answer, and nothing that is not plain."""

from contextlib import asynccontextmanager

import msgspec
import pytest
import trio

from daemon.api.app import build_app
from daemon.api.hot import Hot
from daemon.sessions.registry import Asked
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
