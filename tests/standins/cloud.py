"""A stand-in for ngrok's cloud: accounts, names, sessions of agents, and faults that a test switches on.

    async with open_cloud(tmp_path) as cloud:
        cloud.ngrok, cloud.authtoken      # what pyngrok is given
        cloud.faults.slow_create = 3      # at any time

It runs under Trio inside the test; the agents (tests/standins/ngrok) log in over TCP, the edge (edge.py) answers the public URLs.
"""

import json
import os
import secrets
import signal
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import trio

from tests.standins.edge import Edge, Route, open_edge

AGENT = Path(__file__).parent / "ngrok"
TOKEN = "2aBcDeFgHiJkLmNoPqRsTuVwXyZ_1234567890abcdefghijk"  # the stand-in's own
_BAD = {
    "ERR_NGROK_105": "The authtoken you specified does not look like a proper ngrok authtoken.\nYour authtoken: {token}",
    "ERR_NGROK_107": "The authtoken you specified is properly formed, but it is invalid.\nYour authtoken: {token}",
    "ERR_NGROK_4018": "Usage of ngrok requires a verified account and authtoken.",
    "ERR_NGROK_108": "Your account is limited to {limit} simultaneous ngrok agent sessions.",
    "ERR_NGROK_123": "Your account has not verified its email address.",
}


@dataclass
class Faults:
    """What goes wrong; all of it can be switched while everything runs. Times are seconds."""

    silent_start: bool = False  # an agent prints nothing at all
    exit_at_start: bool = False  # it ends at once, without a word
    hang_login: bool = False  # it never gets its session
    slow_login: float = 0
    login_error: str = ""  # a code that every login gets
    session_limit: int = 1_000
    hang_api: bool = False  # the local API takes requests and never answers
    reset_api: bool = False
    garbage_api: bool = False
    not_ready: int = 0  # so many POSTs get 503, and their names stay taken
    slow_create: float = 0
    create_error: str = ""  # what every new endpoint is refused with
    endpoint_limit: int = 1_000
    same_url: bool = False
    new_urls: bool = False  # nobody gets a URL of before again
    pace: float = 0.1  # of the agent's pauses between reconnections; 1 is the real one
    version: str = ""


@dataclass
class AgentSession:
    """One agent that is logged in."""

    pid: int
    argv: list[str]
    token: str
    config: str
    stream: trio.SocketStream
    names: dict[str, str] = field(default_factory=dict)  # endpoint -> URL
    joined: dict[str, trio.Event] = field(default_factory=dict)
    lock: trio.Lock = field(default_factory=trio.Lock)

    async def send(self, **message: Any) -> None:
        async with self.lock:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self.stream.send_all(json.dumps(message).encode() + b"\n")


class Cloud:
    """Made by `open_cloud`."""

    def __init__(self, folder: Path, plan: str, edge: Edge) -> None:
        self.authtoken = TOKEN
        self.ngrok = folder / "ngrok"
        self.plan = plan
        self.edge = edge
        self.faults = Faults()
        self.agents: list[AgentSession] = []
        self.starts = 0  # of agents
        self.history: list[tuple[str, str]] = []  # every endpoint ever: name, URL
        self._refused_until = -1.0
        self._mine: set[str] = set()  # URLs that the account has had
        self._dev_domain = edge.new_url()

    @property
    def endpoints(self) -> dict[str, str]:
        """Online now: name by URL."""
        return {url: name for agent in self.agents for name, url in agent.names.items()}

    # --- what tests do to it

    async def drop_session(self, seconds: float = 0) -> None:
        """Cut every agent's session, and all connections with it; refuse logins for so long."""
        self._refused_until = trio.current_time() + seconds
        for agent in list(self.agents):
            await trio.aclose_forcefully(agent.stream)

    def stop_endpoint(self, url: str) -> None:
        """As from the dashboard."""
        for agent in self.agents:
            for name in [name for name, given in agent.names.items() if given == url]:
                del agent.names[name]
                self.edge.offline(url, name)
                self.edge.nursery.start_soon(partial(agent.send, do="stop", name=name))

    def signal_agent(self, number: signal.Signals) -> None:
        """SIGKILL, SIGSTOP, SIGCONT to whatever is logged in."""
        for agent in self.agents:
            with suppress(ProcessLookupError):
                os.kill(agent.pid, number)

    # --- what agents ask

    async def serve(self, stream: trio.SocketStream) -> None:
        """One connection of an agent's."""
        lines = _Lines(stream)
        async with stream:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                first = await lines.next()
                if first is None:
                    return
                if first["kind"] == "faults":
                    if first.get("use"):
                        setattr(self.faults, first["use"], max(0, getattr(self.faults, first["use"]) - 1))
                    self.starts += bool(first.get("start"))
                    await stream.send_all(json.dumps(asdict(self.faults)).encode() + b"\n")
                else:
                    await self._session(stream, lines, first)

    async def _session(self, stream: trio.SocketStream, lines: "_Lines", login: dict[str, Any]) -> None:
        if error := self._login_error(login["token"]):
            await stream.send_all(json.dumps({"error": error}).encode() + b"\n")
            return
        agent = AgentSession(login["pid"], login["argv"], login["token"], login["config"], stream)
        self.agents.append(agent)
        try:
            await agent.send(cookie=login["cookie"] or secrets.token_hex(8))
            while (message := await lines.next()) is not None:
                if "joined" in message:
                    if message["joined"] in agent.joined:
                        agent.joined[message["joined"]].set()
                elif message["do"] == "bind":
                    await agent.send(answer=message["number"], **self._bind(agent, message))
                else:
                    url = agent.names.pop(message["name"], None)
                    if url is not None:
                        self.edge.offline(url, message["name"])
                    await agent.send(answer=message["number"])
        finally:
            self.agents.remove(agent)
            for name, url in agent.names.items():
                self.edge.offline(url, name)
                self.edge.cut(url)

    def _login_error(self, token: str) -> str:
        code = self.faults.login_error
        if not code and not token:
            code = "ERR_NGROK_4018"
        elif not code and token != self.authtoken:
            code = "ERR_NGROK_107" if len(token) > 40 and "_" in token else "ERR_NGROK_105"
        elif not code and len(self.agents) >= self.faults.session_limit:
            code = "ERR_NGROK_108"
        if code:
            text = _BAD.get(code, "refused").format(token=token, limit=self.faults.session_limit)
            return f"{text}\n\n\n{code}\n"
        return "the edge is out of order" if trio.current_time() < self._refused_until else ""

    def _bind(self, agent: AgentSession, asked: dict[str, Any]) -> dict[str, Any]:
        faults, wanted = self.faults, asked["url"]
        if faults.create_error:
            return _refusal(faults.create_error)
        limit = min(faults.endpoint_limit, 3 if self.plan == "free" else 1_000)
        if len(self.endpoints) >= limit and sum(len(each.names) for each in self.agents) >= limit:
            return _refusal("ERR_NGROK_324", f"Your account may not run more than {limit} endpoints over one session.")
        if faults.new_urls and wanted in self._mine:
            self._mine.discard(wanted)
            if not asked.get("again"):
                return _refusal("ERR_NGROK_320", "This domain is reserved for another account.")
            wanted = None
        if wanted is not None and wanted not in self._mine:
            return _refusal("ERR_NGROK_320", "This domain is reserved for another account.")
        alone = self.plan == "free" or faults.same_url
        url = wanted or (self._dev_domain if alone else self.edge.new_url())
        for other in self.agents:  # two endpoints of one agent without a URL share theirs, and nobody says so
            if url in other.names.values() and (other is not agent or wanted):
                return _refusal("ERR_NGROK_334", f"The endpoint '{url}' is already online.")
        self._mine.add(url)
        agent.names[asked["name"]] = url
        self.history.append((asked["name"], url))
        route = Route(asked["upstream"], partial(self._join, agent), self.plan == "free")
        self.edge.online(url, asked["name"], route)
        return {"url": url}

    async def _join(self, agent: AgentSession, peer: str) -> None:
        """A public connection goes through the agent; one that is stopped lets nothing through."""
        number = secrets.token_hex(6)
        agent.joined[number] = trio.Event()
        try:
            await agent.send(do="join", id=number, **{"from": peer})
            await agent.joined[number].wait()
        finally:
            del agent.joined[number]


def _refusal(code: str, text: str = "refused") -> dict[str, str]:
    return {"error": f"failed to start tunnel: {text}\r\n\r\n{code}\r\n"}


class _Lines:
    """JSON values, one a line."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._rest = b""

    async def next(self) -> Any:
        """The next one; None at the end."""
        while b"\n" not in self._rest:
            more = await self._stream.receive_some(65536)
            if not more:
                return None
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        return json.loads(line)


@asynccontextmanager
async def open_cloud(folder: Path, *, plan: str = "paid", tls: bool = False, names: int = 300) -> AsyncIterator[Cloud]:
    """A cloud of its own, with an agent's executable of its own: pyngrok keeps one process for each path."""
    async with open_edge(folder, tls=tls, names=names) as edge:
        cloud = Cloud(folder, plan, edge)
        listeners = await edge.nursery.start(partial(trio.serve_tcp, cloud.serve, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        cloud.ngrok.write_text(
            f"#!/bin/sh\nNGROK_STANDIN_CLOUD=127.0.0.1:{port} NGROK_STANDIN_SCRIPT=$0 "
            f'exec {sys.executable} -I -S {AGENT} "$@"\n'
        )
        cloud.ngrok.chmod(stat.S_IRWXU)
        yield cloud


async def _main(plan: str, tls: bool) -> None:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        async with open_cloud(Path(folder), plan=plan, tls=tls) as cloud:
            print(f"export PYNGROK_NGROK_PATH={cloud.ngrok} NGROK_AUTHTOKEN={cloud.authtoken}", flush=True)
            if tls:
                print(f"export SSL_CERT_FILE={cloud.edge.certificate}", flush=True)
            await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(_main, "free" if "--free" in sys.argv else "paid", "--tls" in sys.argv)
