"""The ngrok agent: started in the background, kept running, and the endpoints it has open.

One task starts it, follows its log until it ends, and starts it again after a pause. While it runs, a second one compares what
it has open with what is wanted: after each reconnection, at each wake-up, and now and then in any case.
"""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf

import trio

from tunnel import Log, Tunnel, TunnelError, calls
from tunnel.backoff import Backoff
from tunnel.caller import Caller
from tunnel.codes import HOPELESS, NO_SUCH_NAME, error_from, error_of
from tunnel.endpoints import Endpoint, Endpoints
from tunnel.leash import Leash
from tunnel.patience import Patience

# What an agent in trouble answers; it is asked again.
_AGAIN = frozenset({"ngrok_not_ready", "ngrok_unreachable", "ngrok_hangs", "ngrok_silent", "ngrok_refused"})
_GHOST_CHECK = 1.0  # s


class Agent:
    """Made by `open_agent`."""

    def __init__(self, leash: Leash, secret: str, log: Log, patience: Patience) -> None:
        self.patience = patience
        self.endpoints = Endpoints()
        self.error: TunnelError | None = None  # why it is not up
        self.closing = False
        self._leash = leash
        self._secret = secret
        self._log = log
        self._call = Caller(leash, patience.hang)
        self._process: calls.Process | None = None
        self._online = False  # it has its session with ngrok
        self._attempts = 0
        self._changed = trio.Event()  # renewed whenever one of these changes
        self._needed = trio.Event()  # somebody waits for an agent
        self._wake = trio.Event()  # there is something to compare
        self._one_at_a_time = trio.Lock()
        self._nursery: trio.Nursery | None = None

    @asynccontextmanager
    async def endpoint(self, port: int) -> AsyncIterator[Tunnel]:
        """A URL for a port. Leaving, cancelled or not, takes it away before it returns. Raises `TunnelError`."""
        assert self._nursery is not None
        endpoint = Endpoint(port)
        self.endpoints.add(endpoint)
        try:
            self._nursery.start_soon(self._open_first, endpoint)
            with trio.move_on_after(self.patience.open):
                await endpoint.settled.wait()
            if endpoint.tunnel is None:
                raise endpoint.error or self.error or error_of("ngrok_not_ready")
            yield endpoint.tunnel
        finally:
            self.endpoints.remove(endpoint)
            with trio.move_on_after(self.patience.remove, shield=True):
                await self._remove(endpoint)

    # --- the agent's life

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """Keep an agent running until cancelled, once it has ended only for who needs it; its caller ends the process."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            backoff = Backoff()
            while not self.closing:
                began, hopeless = trio.current_time(), False
                try:
                    process = await self._call(self.patience.start, calls.start, self._leash, self._secret)
                except TunnelError as error:
                    self._log.warning("tunnel_failed", code=error.code, detail=error.detail)
                    self._set(None, error=error)
                    hopeless = error.code in HOPELESS and not self.endpoints.lost()
                else:
                    await self._live(process)
                    if trio.current_time() - began > self.patience.restore:
                        backoff.reset()
                self._leash.signal(signal.SIGKILL)  # the watcher, which waits for our end
                if hopeless or not len(self.endpoints):  # whoever waited has been refused
                    self._needed = trio.Event()
                    await self._needed.wait()
                    backoff.reset()
                await trio.sleep(backoff.next())

    async def _live(self, process: calls.Process) -> None:
        """While the process runs."""
        token, why = trio.lowlevel.current_trio_token(), ""

        def on_line(line: calls.Line) -> None:
            nonlocal why
            why = line.error or why
            self._on_line(line)

        async with trio.open_nursery() as nursery:
            self._set(process, online=True)
            self._log.info("tunnel_up", provider="ngrok")
            nursery.start_soon(self._tend, process)
            # Nothing to be cancelled: it ends with the process, and whoever cancels has seen to that.
            await trio.to_thread.run_sync(
                calls.follow, self._leash, process, lambda line: token.run_sync_soon(on_line, line)
            )
            nursery.cancel_scope.cancel()
        await trio.lowlevel.checkpoint()  # the last lines
        error = error_from(why, "ngrok_agent_ended", self._secret)
        self._log.warning("tunnel_failed", code=error.code, detail=error.detail)
        self._set(None, error=error)
        self._lose(error, *self.endpoints)

    def _on_line(self, line: calls.Line) -> None:
        """What the log says of the session with ngrok; the local API does not tell."""
        if self._process is None:
            return
        if "starting reconnect loop" in line.message or line.message == "session closed":
            error = error_from(line.error, "ngrok_session_lost", self._secret)
            self._set(self._process, online=False, error=error)
            self._lose(error, *self.endpoints)
        elif line.message == "failed to reconnect session":
            self.error = error_from(line.error, "ngrok_session_lost", self._secret)
        elif line.message == "client session established" and not self._online:
            self._set(self._process, online=True)
            self._wake.set()

    def _set(self, process: calls.Process | None, *, online: bool = False, error: TunnelError | None = None) -> None:
        self._process, self._online, self.error = process, online, error
        self._attempts += 1
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    async def _until_online(self) -> calls.Process:
        attempts = self._attempts
        self._needed.set()
        while self._process is None or not self._online:
            if self.error is not None and self.error.code in HOPELESS and self._attempts > attempts:
                raise self.error
            await self._changed.wait()
        return self._process

    # --- what it has open

    async def _tend(self, process: calls.Process) -> None:
        """Keep what is open and what is wanted the same; kill an agent that does not answer."""
        silent, backoff = 0, Backoff(0.2, 5.0)
        while True:
            self._wake = trio.Event()
            try:
                await self._compare(process)
                silent = 0
            except TunnelError as error:
                silent += 1
                self._log.warning("tunnel_failed", code=error.code, detail=error.detail)
                if silent > 1:
                    self._leash.signal(signal.SIGKILL)
                    return
            pause = _GHOST_CHECK if self.endpoints.ghosts else self.patience.check
            if silent or (self._online and self.endpoints.lost()):
                pause = min(pause, backoff.next())
            else:
                backoff.reset()
            with trio.move_on_after(pause):
                await self._wake.wait()

    async def _compare(self, process: calls.Process) -> None:
        settled = self.endpoints.settled()  # before: what is opened while the agent answers need not be in its answer
        listed = await self._call(self.patience.ask, calls.endpoints, process.api, self._secret)
        for name in self.endpoints.nobodys(listed):
            await self._delete(process, name)
            self.endpoints.ghosts.discard(name)
        for endpoint, name in settled if self._online else ():
            if not endpoint.wanted or endpoint.name != name:
                continue
            found = listed.get(name)
            if found != endpoint.url:
                self._lose(error_of("ngrok_endpoint_lost"), endpoint)
            if found is None:
                await self._reopen(process, endpoint)
            elif self.endpoints.has(found, besides=endpoint):
                endpoint.give_up(error_of("ngrok_same_url"))
            else:
                endpoint.opened(found)

    def _lose(self, why: TunnelError, *endpoints: Endpoint) -> None:
        for endpoint in endpoints:
            if endpoint.lose(why):
                assert self._nursery is not None
                self._nursery.start_soon(self._expire, endpoint, endpoint.lost_since)

    async def _expire(self, endpoint: Endpoint, since: float | None) -> None:
        """Give up an endpoint that has been lost for too long."""
        assert since is not None
        await trio.sleep_until(since + self.patience.restore)
        if endpoint.wanted and endpoint.lost_since == since:
            endpoint.give_up(self.error or error_of("ngrok_endpoint_lost"))

    async def _open_first(self, endpoint: Endpoint) -> None:
        """Get a new endpoint its URL, however long the agent takes to come up."""
        backoff = Backoff(0.2, 5.0)
        while endpoint.wanted:
            try:
                await self._create(await self._until_online(), endpoint, None)
            except TunnelError as error:
                if error.code not in _AGAIN:
                    endpoint.give_up(error)
                    return
                self.error = self.error or error
                await trio.sleep(backoff.next())
            else:
                return

    async def _reopen(self, process: calls.Process, endpoint: Endpoint) -> None:
        """Ask for the URL it had; for any other where the account has that name no more."""
        for url in (endpoint.url, None):
            try:
                await self._create(process, endpoint, url)
            except TunnelError as error:
                self.error = error
                if error.code not in NO_SUCH_NAME:
                    return
            else:
                return

    async def _create(self, process: calls.Process, endpoint: Endpoint, url: str | None) -> None:
        async with self._one_at_a_time:
            if not endpoint.wanted:
                return
            name, endpoint.creating = endpoint.rename(), trio.Event()
            try:
                wanted = (name, endpoint.port, url)
                given = await self._call(self.patience.create, calls.create, process.api, *wanted, self._secret)
                if self.endpoints.has(given, besides=endpoint):  # two endpoints on one URL would share its traffic
                    await self._delete(process, name)
                    raise error_of("ngrok_same_url")
                endpoint.opened(given)
            except TunnelError as error:
                if error.code == "ngrok_silent":  # it may still come up
                    self.endpoints.ghosts.add(name)
                    self._wake.set()
                raise
            finally:
                endpoint.creating.set()
                endpoint.creating = None

    async def _remove(self, endpoint: Endpoint) -> None:
        if endpoint.creating is not None:
            self.endpoints.ghosts.add(endpoint.name)  # in case it takes longer than we may wait
            await endpoint.creating.wait()
            self.endpoints.ghosts.discard(endpoint.name)
        process = self._process
        if process is None or endpoint.tunnel is None:
            return
        try:
            await self._delete(process, endpoint.name)
        except TunnelError as error:
            if error.code != "ngrok_unreachable":  # that is: gone with its agent
                # A URL must not outlive its session, whatever it costs the others.
                self._leash.signal(signal.SIGKILL)
                while self._process is process:
                    await self._changed.wait()

    async def _delete(self, process: calls.Process, name: str) -> None:
        await self._call(self.patience.delete, calls.delete, process.api, name, self._secret)


@asynccontextmanager
async def open_agent(leash: Leash, secret: str, log: Log, patience: Patience) -> AsyncIterator[Agent]:
    """An agent that is started in the background.

    It outlives the cancellation of the body, whose URLs are still to be taken away. Leaving ends it, asked to and then by force.
    """
    agent, ended = Agent(leash, secret, log, patience), trio.Event()
    running = trio.CancelScope(shield=True, deadline=inf)  # ends with the body

    async def run(task_status: trio.TaskStatus[None]) -> None:
        try:
            with running:
                await agent.run(task_status)
        finally:
            ended.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        try:
            yield agent
        finally:
            agent.closing = True
            running.cancel()
            with trio.move_on_after(patience.stop + 2, shield=True):
                while not ended.is_set():  # an agent that was just being started is one more
                    await leash.end(patience.stop)
                    with trio.move_on_after(0.02):
                        await ended.wait()
