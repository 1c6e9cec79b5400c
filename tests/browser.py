"""A real Chromium without a screen, driven over its DevTools protocol: as much of it as the tests need."""

import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, open_websocket_url

_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update"),
    *("--disable-background-networking", "--disable-sync", "--disable-dev-shm-usage", "--remote-debugging-port=0"),
)


class Browser:
    """One connection to a browser; answers go to who asked, events are kept."""

    def __init__(self, ws: WebSocketConnection) -> None:
        self._ws = ws
        self._asked = 0
        self._answers: dict[int, Any] = {}
        self._events: list[dict[str, Any]] = []
        self._news = trio.Event()

    async def listen(self) -> None:
        while True:
            try:
                said = msgspec.json.decode(await self._ws.get_message())
            except ConnectionClosed:
                return
            if "id" in said:
                self._answers[said["id"]] = said
            else:
                self._events.append(said)
            self._news.set()
            self._news = trio.Event()

    async def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        self._asked += 1
        mine = self._asked
        command = {"id": mine, "method": method, "params": params, **({"sessionId": session} if session else {})}
        await self._ws.send_message(msgspec.json.encode(command).decode())
        while mine not in self._answers:
            await self._news.wait()
        answer = self._answers.pop(mine)
        assert "error" not in answer, answer["error"]
        return dict(answer["result"])

    async def open(self, url: str) -> "Page":
        """A new tab, once it has loaded."""
        target = (await self.call("Target.createTarget", url="about:blank"))["targetId"]
        session = (await self.call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        page = Page(self, session)
        await page.call("Page.enable")
        await page.call("Page.navigate", url=url)
        await page.loaded(1)
        return page

    async def until(self, done: Callable[[list[dict[str, Any]]], bool]) -> None:
        while not done(self._events):
            await self._news.wait()


class Page:
    """One tab."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        return await self._browser.call(method, self._session, **params)

    async def loaded(self, times: int) -> None:
        """Return when it has loaded so often."""

        def count(events: list[dict[str, Any]]) -> bool:
            mine = [event for event in events if event.get("sessionId") == self._session]
            return [event["method"] for event in mine].count("Page.loadEventFired") >= times

        await self._browser.until(count)

    async def value(self, expression: str) -> Any:
        """What an expression comes to in it."""
        answer = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")


@asynccontextmanager
async def open_browser(folder: Path) -> AsyncIterator[Browser]:
    """A browser with a profile of its own; it is gone when the block is left."""
    program = shutil.which("chromium")
    assert program, "make test-slow installs it"
    argv = [program, *_FLAGS, f"--user-data-dir={folder}", "about:blank"]
    environment = {"HOME": str(folder), "PATH": "/usr/bin:/bin"}
    process = await trio.lowlevel.open_process(
        argv, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        said = b""
        while not (found := re.search(rb"DevTools listening on (ws://\S+)\s", said)):
            more = await process.stderr.receive_some(65536)
            assert more, said.decode()
            said += more
        async with trio.open_nursery() as nursery, open_websocket_url(found[1].decode()) as ws:
            nursery.start_soon(_drain, process.stderr)
            browser = Browser(ws)
            nursery.start_soon(browser.listen)
            yield browser
            nursery.cancel_scope.cancel()
    finally:
        process.kill()
        with trio.move_on_after(5, shield=True):
            await process.wait()
        await trio.aclose_forcefully(process.stderr)


async def _drain(stream: trio.abc.ReceiveStream) -> None:
    while await stream.receive_some(65536):
        pass
