"""What can go wrong with ngrok, one by one: what is expected of footlight, and how long it took.

Each fault is a coroutine that makes it happen and asserts the answer. `python -m tests.tunnel.faults` prints the table of
docs/testing.md.
"""

import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from tests.standins.cloud import Cloud, open_cloud
from tests.support import children, descriptors
from tests.tunnel.conformance import Answering, answering, body_at, provider_of
from tunnel import Lost, Restored, Tunnel, TunnelError, TunnelProvider
from tunnel.calls import endpoints
from tunnel.choose import Wishes
from tunnel.leash import Leash
from tunnel.patience import Patience
from tunnel.probe import ask, verify

# The product's own order of things, faster.
PATIENCE = Patience(open=8, restore=6, remove=3, check=0.5, stop=2, start=3, create=4, ask=0.5, delete=1, hang=0.5)
CASES: list["Case"] = []
Run = Callable[["Stage"], Awaitable[None]]


@dataclass(frozen=True)
class Case:
    """One fault."""

    fault: str
    answer: str
    run: Run
    plan: str
    slow: bool  # takes long, as a patience has to run out in it


@dataclass
class Stage:
    """What a case plays on."""

    cloud: Cloud
    provider: TunnelProvider
    folder: Path
    seconds: float = 0.0

    @asynccontextmanager
    async def measured(self) -> AsyncIterator[None]:
        """What the table says of it."""
        began = trio.current_time()
        yield
        self.seconds = trio.current_time() - began

    @asynccontextmanager
    async def opened(self, body: bytes = b"x") -> AsyncIterator[Tunnel]:
        async with answering(body) as entrance, self.provider.open(entrance) as tunnel:
            assert await body_at(tunnel) == body
            yield tunnel

    async def restored(self, tunnel: Tunnel, code: str) -> Restored:
        """The next two things that a session is told."""
        lost = await tunnel.next_change()
        assert isinstance(lost, Lost)
        assert lost.code == code
        back = await tunnel.next_change()
        assert isinstance(back, Restored)
        return back


def case(fault: str, answer: str, *, plan: str = "paid", slow: bool = False) -> Callable[[Run], Run]:
    def keep(run: Run) -> Run:
        CASES.append(Case(fault, answer, run, plan, slow))
        return run

    return keep


@asynccontextmanager
async def open_stage(folder: Path, plan: str = "paid", patience: Patience = PATIENCE) -> AsyncIterator[Stage]:
    async with open_cloud(folder, plan=plan) as cloud:
        before = os.environ.get("PYNGROK_NGROK_PATH")
        os.environ["PYNGROK_NGROK_PATH"] = str(cloud.ngrok)
        try:
            wishes = Wishes(name="ngrok", folder=folder / "agent", authtoken=cloud.authtoken, patience=patience)
            async with provider_of(wishes) as provider:
                yield Stage(cloud, provider, folder)
        finally:
            os.environ.pop("PYNGROK_NGROK_PATH")
            if before is not None:
                os.environ["PYNGROK_NGROK_PATH"] = before


async def play(what: Case, folder: Path) -> float:
    """Let it go wrong; the seconds it took. Nothing of it may be left."""
    fds, processes = descriptors(), children()
    async with open_stage(folder, what.plan) as stage:
        await what.run(stage)
        with trio.fail_after(3):
            while stage.cloud.endpoints:
                await trio.sleep(0.01)
    assert not stage.cloud.agents
    assert Leash(folder / "agent", Path()).running() == set()
    assert children() == processes
    assert descriptors() == fds
    return stage.seconds


async def refused(stage: Stage, code: str) -> TunnelError:
    with pytest.raises(TunnelError) as error:
        async with stage.provider.open(Answering()):
            pass
    assert error.value.code == code, error.value
    assert stage.cloud.authtoken not in str(error.value)
    return error.value


@case("bad authtoken", "the session is refused with ngrok's code; the next one asks again")
async def bad_token(stage: Stage) -> None:
    stage.cloud.faults.login_error = "ERR_NGROK_107"
    async with stage.measured():
        error = await refused(stage, "ERR_NGROK_107")
    assert "dashboard.ngrok.com" in error.detail
    stage.cloud.faults.login_error = ""
    async with stage.opened():
        pass


@case("limit of agent sessions", "asked again until there is room", slow=True)
async def session_limit(stage: Stage) -> None:
    stage.cloud.faults.session_limit = 0

    async def make_room() -> None:
        while stage.cloud.starts < 2:
            await trio.sleep(0.01)
        stage.cloud.faults.session_limit = 1

    async with trio.open_nursery() as nursery, stage.measured():
        nursery.start_soon(make_room)
        async with stage.opened():
            pass


@case(
    "limit of agent sessions, for good",
    "the session is refused with ngrok's code when its patience (8 s here) is over",
    slow=True,
)
async def session_limit_for_good(stage: Stage) -> None:
    stage.cloud.faults.session_limit = 0
    async with stage.measured():
        await refused(stage, "ERR_NGROK_108")


@case("limit of endpoints", "the session over it is refused with ngrok's code; the others go on")
async def endpoint_limit(stage: Stage) -> None:
    stage.cloud.faults.endpoint_limit = 1
    async with stage.opened(b"first") as tunnel:
        async with stage.measured():
            await refused(stage, "ERR_NGROK_324")
        assert await body_at(tunnel) == b"first"


@case("silent start", "the agent is killed after its time (3.5 s here) and started again", slow=True)
async def silent_start(stage: Stage) -> None:
    stage.cloud.faults.silent_start = True
    async with trio.open_nursery() as nursery, stage.measured():
        nursery.start_soon(_speak_from_the_second_on, stage)
        async with stage.opened():
            pass


async def _speak_from_the_second_on(stage: Stage) -> None:
    while stage.cloud.starts < 1:
        await trio.sleep(0.01)
    stage.cloud.faults.silent_start = False  # the one that has started knows nothing of it


@case("exit at start, without a word", "started again", slow=True)
async def exit_at_start(stage: Stage) -> None:
    stage.cloud.faults.exit_at_start = True

    async def mend() -> None:
        while stage.cloud.starts < 2:
            await trio.sleep(0.01)
        stage.cloud.faults.exit_at_start = False

    async with trio.open_nursery() as nursery, stage.measured():
        nursery.start_soon(mend)
        async with stage.opened():
            pass


@case("local API hangs", "the agent is killed and started again; the same URL is back")
async def hang_api(stage: Stage) -> None:
    async with stage.opened() as tunnel, stage.measured():
        await _broken_api(stage, tunnel, "hang_api")


@case("local API closes without an answer", "the agent is killed and started again; the same URL is back", slow=True)
async def reset_api(stage: Stage) -> None:
    async with stage.opened() as tunnel, stage.measured():
        await _broken_api(stage, tunnel, "reset_api")


@case("local API answers nonsense", "the agent is killed and started again; the same URL is back", slow=True)
async def garbage_api(stage: Stage) -> None:
    async with stage.opened() as tunnel, stage.measured():
        await _broken_api(stage, tunnel, "garbage_api")


async def _broken_api(stage: Stage, tunnel: Tunnel, fault: str) -> None:
    setattr(stage.cloud.faults, fault, True)
    lost = await tunnel.next_change()
    assert isinstance(lost, Lost)
    assert lost.code == "ngrok_agent_ended"
    setattr(stage.cloud.faults, fault, False)
    back = await tunnel.next_change()
    assert isinstance(back, Restored)
    assert back.old == back.new
    assert await body_at(tunnel) == b"x"


@case("local API hangs while a session ends", "the agent is killed: the URL is gone with its session")
async def hang_at_end(stage: Stage) -> None:
    async with stage.opened():
        stage.cloud.faults.hang_api = True
        began = trio.current_time()
    stage.seconds = trio.current_time() - began
    with trio.fail_after(0.5):
        while stage.cloud.endpoints:  # the stand-in has to hear of it
            await trio.sleep(0)
    stage.cloud.faults.hang_api = False


@case("not yet ready (503), the name stays taken", "asked again under another name")
async def not_ready(stage: Stage) -> None:
    stage.cloud.faults.not_ready = 2
    async with stage.measured(), stage.opened():
        pass


@case("slow creation (1.5 s)", "waited for", slow=True)
async def slow_creation(stage: Stage) -> None:
    stage.cloud.faults.slow_create = 1.5
    async with stage.measured(), stage.opened():
        pass


@case("slow creation (1.5 s), session stopped meanwhile", "the endpoint is taken away before the session has ended")
async def slow_creation_cancelled(stage: Stage) -> None:
    stage.cloud.faults.slow_create = 1.5
    async with stage.measured():
        with trio.move_on_after(0.7):
            async with stage.provider.open(Answering()):
                raise AssertionError("too early")
    assert len(stage.cloud.history) == 1
    assert not stage.cloud.endpoints


@case(
    "creation slower than its deadline (4 s here)", "refused; the endpoint that comes up later is taken away", slow=True
)
async def creation_too_slow(stage: Stage) -> None:
    stage.cloud.faults.slow_create = 5.0
    async with stage.measured():
        with trio.move_on_after(5.5):
            async with stage.provider.open(Answering()):
                raise AssertionError("too early")
        stage.cloud.faults.slow_create = 0
        while not stage.cloud.history or stage.cloud.endpoints:
            await trio.sleep(0.01)


@case("connection to ngrok lost, back after 1 s", "tunnel_lost, tunnel_restored; the same URL")
async def reconnect(stage: Stage) -> None:
    async with stage.opened() as tunnel, stage.measured():
        url = tunnel.url
        await stage.cloud.drop_session(1.0)
        back = await stage.restored(tunnel, "ngrok_session_lost")
        assert (back.old, back.new) == (url, url)
        assert await body_at(tunnel) == b"x"


@case(
    "connection to ngrok lost for good",
    "the session ends with the provider's code when the patience (6 s here) is over",
    slow=True,
)
async def lost_for_good(stage: Stage) -> None:
    async with stage.opened() as tunnel, stage.measured():
        await stage.cloud.drop_session(1000)
        assert isinstance(await tunnel.next_change(), Lost)
        with pytest.raises(TunnelError, match="ngrok_session_lost"):
            await tunnel.next_change()


@case("death of the agent (SIGKILL)", "started again; the same URL is back")
async def death(stage: Stage) -> None:
    async with stage.opened() as tunnel, stage.measured():
        url = tunnel.url
        stage.cloud.signal_agent(signal.SIGKILL)
        back = await stage.restored(tunnel, "ngrok_agent_ended")
        assert (back.old, back.new) == (url, url)
        assert await body_at(tunnel) == b"x"


@case("death of the agent, other URLs afterwards", "websocket_url_changed; the new URL is checked first")
async def new_urls(stage: Stage) -> None:
    async with stage.opened() as tunnel, stage.measured():
        url = tunnel.url
        stage.cloud.faults.new_urls = True
        stage.cloud.signal_agent(signal.SIGKILL)
        back = await stage.restored(tunnel, "ngrok_agent_ended")
        assert back.old == url != back.new == tunnel.url
        assert await body_at(tunnel) == b"x"


@case("free plan: a second URL that is the first one's", "refused, taken away; the first session goes on", plan="free")
async def free_plan(stage: Stage) -> None:
    async with stage.opened(b"first") as tunnel:
        async with stage.measured():
            error = await refused(stage, "ngrok_same_url")
        assert "ngrok-shared" in error.detail
        assert await body_at(tunnel) == b"first"
        assert list(stage.cloud.endpoints) == [tunnel.url]


@case("public connections dropped", "nothing changes; clients come back to the same URL")
async def dropped_connections(stage: Stage) -> None:
    async with stage.opened() as tunnel:
        stage.cloud.edge.cut()
        async with stage.measured():
            assert await body_at(tunnel) == b"x"


@case("agent frozen (SIGSTOP)", "killed and started again; the same URL is back", slow=True)
async def frozen(stage: Stage) -> None:
    async with stage.opened() as tunnel, stage.measured():
        stage.cloud.signal_agent(signal.SIGSTOP)
        back = await stage.restored(tunnel, "ngrok_agent_ended")
        assert back.old == back.new
        assert await body_at(tunnel) == b"x"


@case("endpoint stopped from the dashboard", "opened again, at the same URL")
async def stopped_elsewhere(stage: Stage) -> None:
    async with stage.opened() as tunnel, stage.measured():
        stage.cloud.stop_endpoint(tunnel.url)
        back = await stage.restored(tunnel, "ngrok_endpoint_lost")
        assert back.old == back.new
        assert await body_at(tunnel) == b"x"


@case("more than 64 KiB of agent log", "read as it comes: the agent goes on")
async def much_log(stage: Stage) -> None:
    async with stage.opened() as tunnel, stage.measured():
        api = stage.provider._agent._process.api  # type: ignore[attr-defined]
        for _ in range(400):  # two lines each
            await trio.to_thread.run_sync(endpoints, api, "", 5.0)
        assert await body_at(tunnel) == b"x"


@case("edge answers with an error of the account's", "recognised by its header: the code is the session's error")
async def edge_error(stage: Stage) -> None:
    async with stage.opened() as tunnel:
        stage.cloud.edge.error = "ERR_NGROK_727"
        async with stage.measured():
            with pytest.raises(TunnelError, match="requests for this month") as error:
                await verify(tunnel.url + "/health", b"x", headers={}, deadline=0.5)
        assert error.value.code == "ERR_NGROK_727"
        stage.cloud.edge.error = ""


@case(
    "free plan: the page that browsers get first", "not shown to the check; a browser gets it, recognised", plan="free"
)
async def interstitial(stage: Stage) -> None:
    browser = {"User-Agent": "Mozilla/5.0"}
    async with stage.opened() as tunnel, stage.measured():
        assert (await ask(tunnel.url + "/health", browser)).edge_error == "ERR_NGROK_6024"
        cookie = {"Cookie": "abuse_interstitial=127.0.0.1", **browser}
        assert (await ask(tunnel.url + "/health", cookie)).edge_error is None
        await verify(tunnel.url + "/health", b"x", headers=browser, deadline=2)


async def table() -> None:
    """The table of docs/testing.md."""
    print("| fault | what is expected, and was seen | s |\n| --- | --- | --- |")
    for what in CASES:
        with tempfile.TemporaryDirectory() as folder, trio.fail_after(60):
            seconds = await play(what, Path(folder))
        print(f"| {what.fault} | {what.answer} | {seconds:.2f} |", flush=True)


if __name__ == "__main__":
    from daemon import log

    log.configure("text", quiet="-v" not in sys.argv)
    trio.run(table)
