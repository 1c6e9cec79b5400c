"""The preview in a real browser: it follows the agent's files, and the agent and everybody hears of its errors."""

import socket
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import trio

from daemon.clients.follow import open_client
from daemon.testing import open_test_daemon
from tests.browser import Page, open_browser
from tests.support import api, events_until, next_event

pytestmark = pytest.mark.slow

SCRIPT = """
name = "preview"
[[turn]]
pattern = "build"
[[turn.step]]
[[turn.step.tool]]
name = "write"
input = { file_path = "index.html", content = '''<!doctype html>
<html lang="en"><head><title>One</title><link rel="stylesheet" href="style.css"></head>
<body><div style="height: 5000px">tall</div><img src="missing.png"><script src="app.js"></script></body></html>''' }
[[turn.step.tool]]
name = "write"
input = { file_path = "style.css", content = "body { color: rgb(1, 2, 3) }" }
[[turn.step.tool]]
name = "write"
input = { file_path = "app.js", content = '''console.error("first", {a: 1});
Promise.reject(new Error("second"));
nothing.third();''' }
[[turn.step]]
text = "Built."

[[turn]]
pattern = "restyle"
[[turn.step]]
[[turn.step.tool]]
name = "write"
input = { file_path = "app.js", content = "console.error('only this')" }
[[turn.step.tool]]
name = "write"
input = { file_path = "style.css", content = "body { color: rgb(4, 5, 6) }" }
[[turn.step]]
text = "Restyled."
[[turn.step.tool]]
name = "preview_errors"
[[turn.step]]
text = "I see."

[[turn]]
[[turn.step]]
text = "Hello."
[[turn.step.tool]]
name = "preview_errors"
[[turn.step]]
text = "I see."
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def settings(folder: Path, tunnel: str) -> dict[str, Any]:
    (folder / "script.toml").write_text(SCRIPT)
    found: dict[str, Any] = {"script": folder / "script.toml", "tunnel": tunnel}
    if tunnel == "static":
        port = free_port()
        found |= {"shared_port": port, "public_url": f"http://127.0.0.1:{port}"}
    return found


async def colour(page: Page) -> Any:
    return await page.value("getComputedStyle(document.body).color")


@pytest.mark.parametrize("tunnel", ["local", "static"])
async def test_page_in_a_browser_follows_the_agent_and_tells_its_errors(tmp_path, tunnel):
    with trio.fail_after(90):
        async with (
            open_test_daemon(tmp_path / "state", **settings(tmp_path, tunnel)) as daemon,
            api(daemon.url) as client,
            open_browser(tmp_path / "profile") as browser,
        ):
            await client.post("/api/chat", json={"message": "build", "session_id": "s"})
            view = (await client.get("/api/sessions/s?wait=20")).json()
            async with open_client(view["websocket_url"]) as ws:
                await events_until(ws, lambda event: event["event"] == "ready_for_input")
                page = await browser.open(view["preview_url"])
                assert await page.value("[document.title, document.compatMode]") == ["One", "CSS1Compat"]
                assert await colour(page) == "rgb(1, 2, 3)"

                told = []
                while len(told) < 4:
                    event = await next_event(ws)
                    told += [event["data"]] if event["event"] == "preview_error" else []
                assert {error["path"] for error in told} == {"/"}
                assert sorted((error["message"], error["source"], error["line"]) for error in told) == [
                    ("Uncaught ReferenceError: nothing is not defined", "app.js", 3),
                    ("cannot load missing.png", "", 0),
                    ('first {"a":1}', "", 0),
                    ("unhandled rejection: Error: second", "", 0),
                ]

                # A second page of the same errors says nothing new.
                other = await browser.open(view["preview_url"].partition("?")[0])
                assert await other.value("document.title") == "One"

                await page.call("Page.bringToFront")
                await page.value("scrollTo(0, 1234)")
                assert (await client.post("/api/chat", json={"message": "restyle", "session_id": "s"})).is_success
                said = await events_until(ws, lambda event: event["event"] == "ready_for_input")
                for times in count(2):  # once or twice, as the two files may be seen as one change or as two
                    await page.loaded(times)
                    if await colour(page) == "rgb(4, 5, 6)":
                        break
                assert await page.value("scrollY") == 1234
                errors = {event["data"]["message"] for event in said if event["event"] == "preview_error"}
                assert errors == {"cannot load missing.png", "only this"}
                result = [event["data"] for event in said if event["event"] == "claude_tool_result"][-1]
                assert "only this" in result["result"]
                assert "nothing is not defined" not in result["result"]
                assert result["is_error"] is False

            # None of it is in the files.
            kept = (await client.get("/api/sessions/s/files/index.html")).text
            assert "footlight" not in kept


async def test_agent_is_told_that_nobody_looks_where_nobody_does(tmp_path):
    with trio.fail_after(30):
        async with (
            open_test_daemon(tmp_path / "state", **settings(tmp_path, "local")) as daemon,
            api(daemon.url) as client,
        ):
            await client.post("/api/chat", json={"message": "hello", "session_id": "s"})
            view = (await client.get("/api/sessions/s?wait=20")).json()
            async with open_client(view["websocket_url"]) as ws:
                said = await events_until(ws, lambda event: event["event"] == "claude_tool_result")
            assert "Nobody has the preview open" in said[-1]["data"]["result"]


async def test_framed_page_leaves_reloading_to_the_one_around_it_and_a_pages_policy_is_kept(tmp_path):
    with trio.fail_after(60):
        async with (
            open_test_daemon(tmp_path / "state", **settings(tmp_path, "local")) as daemon,
            api(daemon.url) as client,
            open_browser(tmp_path / "profile") as browser,
        ):
            await client.post("/api/chat", json={"message": "hello", "session_id": "s"})
            view = (await client.get("/api/sessions/s?wait=20")).json()
            workspace = daemon.registry._live["s"].agent._workspace
            policy = "<meta http-equiv=Content-Security-Policy content=\"script-src 'self'; connect-src 'none'\">"
            workspace.write(
                "closed.html", f"<!doctype html>{policy}<title>x</title><script src=a.js></script>".encode()
            )
            workspace.write("a.js", b"document.title = 'ran'; fetch('a.js').catch(() => document.title = 'kept')")
            workspace.write("inner.html", b"<!doctype html><title>inner</title>")
            workspace.write(
                "index.html", b"<!doctype html><title>outer</title>" + b"<iframe src=inner.html></iframe>" * 2
            )

            await browser.open(view["preview_url"])
            while not workspace.visits._waiting:
                await trio.sleep(0.01)
            assert workspace.visits._waiting == 1

            page = await browser.open(view["preview_url"].partition("?")[0] + "closed.html")
            while (title := await page.value("document.title")) == "ran":
                await trio.sleep(0.01)
            assert title == "kept"
            assert workspace.visits._waiting == 1
