import ast
import io
import json
import re
from pathlib import Path
from string import Formatter

import pytest
import trio

from daemon import log
from daemon.clients.follow import open_client
from daemon.sessions.registry import Asked
from daemon.testing import open_test_daemon
from tests.sessions.house import Crashes, Tunnels, journaled_until, open_sessions, write_script
from tests.support import api, events_until
from tunnel import TunnelError

ROOT = Path(__file__).parent.parent
HELLO = '[[turn]]\n[[turn.step]]\ntext = "Hello."'


@pytest.fixture
def lines():
    """Configures the log into a buffer; what was written so far, line by line."""
    out = io.StringIO()

    def configure(log_format="text", *, quiet=False):
        log.configure(log_format, out=out, quiet=quiet)
        return lambda: out.getvalue().splitlines()

    yield configure
    log.configure("text", quiet=True)


async def scripted_session(tmp_path):
    """A session from its creation to its end, with a client that comes and goes; its tokens."""
    tunnels = Tunnels()
    async with open_sessions(tmp_path, tunnels, script=write_script(tmp_path, HELLO)) as registry:
        await registry.chat(Asked(message="hi", session_id="abc123"))
        view = await registry.wait("abc123", 5)
        async with open_client(view.websocket_url) as ws:
            await events_until(ws, lambda event: event["event"] == "ready_for_input")
        while registry.get("abc123").connected_clients:
            await trio.lowlevel.checkpoint()
        await registry.chat(Asked(message="more", session_id="abc123"))
        await journaled_until(registry, "abc123", "ready_for_input", 2)
        session = registry._live["abc123"]
        await registry.stop("abc123")
        await registry.chat(Asked(message="again", session_id="abc123"))
        await registry.wait("abc123", 5)
        tokens = [session.tokens, registry._live["abc123"].tokens]
        await registry.stop("abc123")
    return [secret for run in tokens for secret in (run.control, run.watch, run.preview)]


async def test_lines_of_a_whole_session_are_the_ones_that_users_grep(tmp_path, lines):
    written = lines("text")
    await scripted_session(tmp_path)
    found = [re.sub(r"127\.0\.0\.1:\d+", "host", line) for line in written()]
    spawned = r"\[API\] Sandbox spawned with ID: [0-9a-f]{16}"
    assert len({line for line in found if re.fullmatch(spawned, line)}) == 2
    assert [re.sub(r"[0-9a-f]{16}$", "4f1c…", line) for line in found] == [
        "[API] POST /api/chat - session_id: abc123",
        "[API] New session: True",
        "[API] Creating new session abc123",
        "[API] Spawning sandbox for session abc123",
        "[API] Sandbox spawned with ID: 4f1c…",
        "[Sandbox:abc123] ngrok websocket tunnel created: ws://host/ws",
        "[Sandbox:abc123] This tunnel will remain stable for the duration of this session",
        "[Sandbox:abc123] Updated session with WebSocket URL",
        "[Sandbox:abc123] WebSocket client 1 connected (total clients: 1)",
        "[Sandbox:abc123] WebSocket client 1 disconnected (remaining clients: 0)",
        "[API] POST /api/chat - session_id: abc123",
        "[API] New session: False",
        "[API] Session abc123 already running, returning existing session",
        "[Sandbox:abc123] Session ended: stopped",
        "[API] POST /api/chat - session_id: abc123",
        "[API] New session: False",
        "[API] Reopening session abc123",
        "[API] Spawning sandbox for session abc123",
        "[API] Sandbox spawned with ID: 4f1c…",
        "[Sandbox:abc123] ngrok websocket tunnel created: ws://host/ws",
        "[Sandbox:abc123] This tunnel will remain stable for the duration of this session",
        "[Sandbox:abc123] Updated session with WebSocket URL",
        "[Sandbox:abc123] Session ended: stopped",
    ]


async def test_json_has_the_same_facts_as_fields(tmp_path, lines):
    written = lines("json")
    await scripted_session(tmp_path)
    found = [json.loads(line) for line in written()]
    for fact in found:
        assert fact.pop("level") == "info"
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", fact.pop("timestamp"))
    assert [fact["event"] for fact in found[:10]] == [
        "request",
        "new_session",
        "creating",
        "spawning",
        "spawned",
        "tunnel_created",
        "tunnel_stable",
        "url_published",
        "client_connected",
        "client_disconnected",
    ]
    assert found[0] == {"event": "request", "method": "POST", "path": "/api/chat", "session_id": "abc123"}
    assert found[1] == {"event": "new_session", "new": True}
    assert (found[5]["provider"], found[5]["url"][:5]) == ("ngrok", "ws://")
    assert found[8] == {"event": "client_connected", "session_id": "abc123", "client_id": 1, "clients": 1}
    assert found[9] == {"event": "client_disconnected", "session_id": "abc123", "client_id": 1, "clients": 0}
    assert found[-1] == {"event": "session_ended", "session_id": "abc123", "reason": "stopped"}


@pytest.mark.parametrize("log_format", ["text", "json"])
async def test_no_line_holds_a_token(tmp_path, lines, log_format):
    written = lines(log_format)
    tokens = await scripted_session(tmp_path)
    assert len(set(tokens)) == 6
    said = "\n".join(written())
    assert "tunnel" in said
    assert not [token for token in tokens if token in said]


@pytest.mark.parametrize("log_format", ["text", "json"])
async def test_no_line_holds_a_token_whatever_a_stranger_asks_for(tmp_path, lines, log_format):
    written = lines(log_format)
    with trio.fail_after(20):
        async with open_test_daemon(tmp_path, script=write_script(tmp_path, HELLO), api_token="s3cret") as daemon:
            async with api(daemon.url) as client:
                await client.post("/api/chat", json={"message": "hi", "session_id": "abc"})
                view = (await client.get("/api/sessions/abc", params={"wait": 5})).json()
                for url in (view["preview_url"], view["health_url"], view["websocket_url"].replace("ws://", "http://")):
                    await client.get(url)
                    await client.get(url.replace("?", "%00?"))
                await client.get("/api/sessions/abc%0a", headers={"Authorization": "Bearer s3cret"})
            tokens = [view[name].partition("token=")[2] for name in ("websocket_url", "watch_url", "preview_url")]
    said = "\n".join(written())
    assert all(len(token) > 20 for token in tokens)
    assert not [token for token in [*tokens, "s3cret"] if token in said]


async def test_failure_of_a_session_is_one_line_without_a_traceback_where_it_was_foreseen(tmp_path, lines):
    written = lines("text")
    tunnels = Crashes(TunnelError("ERR_NGROK_108", "one\x1b[2Jsession\r\nat a time"))
    async with open_sessions(tmp_path, tunnels, script=write_script(tmp_path, HELLO)) as registry:
        await registry.chat(Asked(message="hi", session_id="abc"))
        await registry.wait("abc", 5)
        tunnels.crash.set()
        await registry._live["abc"].ended.wait()
    failures = [line for line in written() if "ERROR" in line or "failed" in line]
    shown = "one?[2Jsession??at a time".replace("?", "\N{REPLACEMENT CHARACTER}")
    assert failures == [f"ERROR: [Sandbox:abc] Session failed: ERR_NGROK_108: {shown}"]
    assert written()[-1] == "[Sandbox:abc] Session ended: error"


async def test_failure_of_a_session_shows_where_it_came_from_once_where_it_was_not_foreseen(tmp_path, lines):
    written = lines("text")
    tunnels = Crashes(ValueError("never \x1b[2J seen"))
    async with open_sessions(tmp_path, tunnels, script=write_script(tmp_path, HELLO)) as registry:
        await registry.chat(Asked(message="hi", session_id="abc"))
        await registry.wait("abc", 5)
        tunnels.crash.set()
        await registry._live["abc"].ended.wait()
    said = written()
    assert said.count("ERROR: [Sandbox:abc] Session failed: internal_error: the session failed; the log says more") == 1
    assert said.count("ValueError: never \N{REPLACEMENT CHARACTER}[2J seen") == 1
    assert any(line.startswith("Traceback") for line in said)
    assert "\x1b" not in "".join(said)


# --- single lines


@pytest.mark.parametrize(
    "text",
    ["a\nb", "a\rb", "a\x1bb", "a\x00b", "a\x7fb", "a\x9bb", "a\u2028b", "a\u2029b", "a\u202eb", "a\u2066b", "a\tb"],
    ids=ascii,
)
def test_control_characters_are_replaced(lines, text):
    written = lines("text")
    log.log.info("creating", session_id=text)
    log.log.info("of no fixed line", session_id=text)
    clean = "a\N{REPLACEMENT CHARACTER}b"
    assert written() == [f"[API] Creating new session {clean}", f"of no fixed line session_id={clean}"]


@pytest.mark.parametrize("text", ["caf\N{LATIN SMALL LETTER E WITH ACUTE}", "\N{GRINNING FACE}", "a b", "{x}", "%s"])
def test_other_text_is_left_as_it_is(lines, text):
    written = lines("text")
    log.log.info("creating", session_id=text)
    assert written() == [f"[API] Creating new session {text}"]


@pytest.mark.parametrize("text", ["a\nb", "a\x1b[2Jb", "a\u2028b", "a\u202eb"], ids=ascii)
def test_json_keeps_a_line_a_line_and_the_value_whole(lines, text):
    written = lines("json")
    log.log.info("creating", session_id=text)
    [line] = written()
    assert line.isprintable()
    assert line.isascii()
    assert json.loads(line)["session_id"] == text


def test_quiet_keeps_warnings_and_errors_alone(lines):
    written = lines("text", quiet=True)
    logger = log.log
    logger.debug("a")
    logger.info("b")
    logger.warning("c", why="d")
    logger.error("e")
    assert written() == ["WARNING: c why=d", "ERROR: e"]


def test_debug_is_not_shown(lines):
    written = lines("text")
    log.log.debug("a")
    assert written() == []


class Gone(io.StringIO):
    def write(self, text):
        raise BrokenPipeError

    def flush(self):
        raise BrokenPipeError


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_log_that_nobody_reads_any_more_ends_nothing(lines, log_format):
    lines()
    closed = io.StringIO()
    closed.close()
    for out in (Gone(), closed):
        log.configure(log_format, out=out)
        log.log.info("creating", session_id="abc")


def calls():
    """Each call of a logger in the daemon: where, its event, the names of its fields."""
    for path in [*(ROOT / "daemon").rglob("*.py"), *(ROOT / "tunnel").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and ast.unparse(node.func.value) in {"log", "self._log"}
                and node.func.attr in {"debug", "info", "warning", "error"}
            ):
                yield f"{path.name}:{node.lineno}", node


def test_every_call_gives_its_line_the_fields_it_needs_and_every_line_has_a_call():
    used = set()
    for where, node in calls():
        [event] = node.args
        names = (
            [value.value for value in (event.body, event.orelse)]
            if isinstance(event, ast.IfExp)
            else [event.value]
            if isinstance(event, ast.Constant)
            else ["client_connected", "client_disconnected"]  # the one that gets its event as an argument
        )
        for name in names:
            if name in log.LINES:
                used.add(name)
                needed = {field for _, field, _, _ in Formatter().parse(log.LINES[name]) if field}
                assert needed <= {keyword.arg for keyword in node.keywords}, f"{where}: {name}"
    assert used == set(log.LINES)
