"""`footlight demo`: one session from its first word to its site, with no account and no key."""

from functools import partial
from typing import Any

from rich.console import Console
from rich.text import Text

from daemon.clients.follow import follow
from daemon.config import Config
from daemon.main import INTERRUPTED, Daemon, run_daemon
from daemon.sessions.lifecycle import Reason
from daemon.sessions.record import SessionView
from daemon.sessions.registry import Asked
from daemon.terminal import Transcript


async def run_demo(config: Config, message: str, once: bool) -> int:
    """Build, show, and keep serving until Ctrl+C; with `once` end after the first turn. The exit code."""
    demo = _Demo(Console(highlight=False), message, once)
    await run_daemon(config, demo.run)
    return demo.code


class _Demo:
    def __init__(self, console: Console, message: str, once: bool) -> None:
        self.code = INTERRUPTED  # until the first turn is through
        self._console = console
        self._message = message
        self._once = once
        self._transcript = Transcript(console)

    async def run(self, daemon: Daemon) -> int:
        registry = daemon.registry
        view, _ = await registry.chat(Asked(message=self._message))
        view = await registry.wait(view.session_id, registry.config.verify_deadline + 5)
        if view.websocket_url is None:
            detail = view.error.detail if view.error else "no URL"
            self._console.print(Text(f"the session could not start: {detail}", "bold red"))
            self.code = 1
            return self.code
        self._say("footlight", "one live URL per agent session; here with a scripted model, so no account and no key")
        self._url("the site as it is built, in a browser", view.preview_url)
        self._url("everything that happens, to watch", view.watch_url)
        self._url("the same, to take part", view.websocket_url)
        self._url("the API", daemon.url)
        await follow(view.websocket_url, partial(self._on_event, daemon.url, view))
        if self._once:
            await registry.stop(view.session_id, Reason.completed)
        return self.code

    def _on_event(self, api: str, view: SessionView, event: dict[str, Any]) -> bool:
        """Show an event; whether it is the last one to wait for."""
        self._transcript.show(event)
        ended: bool = event["event"] == "session_end"
        if self.code == INTERRUPTED and (ended or event["event"] == "turn_complete"):
            self.code = 1 if ended or event["data"]["is_error"] else 0
            if self._once:
                return True
            if not ended:
                self._invite(api, view)
        return ended

    def _invite(self, api: str, view: SessionView) -> None:
        self._url("\n  The site stays here until Ctrl+C", view.preview_url)
        self._console.print("  Ask for more, for example:", style="dim")
        body = f'{{"session_id": "{view.session_id}", "message": "Give it an evening theme"}}'
        self._console.print(
            f"curl {api}/api/chat -H 'Content-Type: application/json' -d '{body}'", markup=False, soft_wrap=True
        )

    def _say(self, name: str, what: str) -> None:
        self._console.print(Text.assemble((f"\n  {name} ", "bold cyan"), (what, "dim")), soft_wrap=True)

    def _url(self, what: str, url: str | None) -> None:
        self._console.print(Text(f"  {what}", "dim"), soft_wrap=True)
        self._console.print(Text(url or "", "bold underline"), soft_wrap=True)
