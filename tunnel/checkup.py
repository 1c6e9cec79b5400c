"""Whether ngrok really gives this machine a URL, and how many: tried, as nothing but a URL can tell."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import trio

from tunnel import Log
from tunnel.either import allows_urls_per_session
from tunnel.ngrok import open_ngrok
from tunnel.patience import Patience
from tunnel.probe import verify

_VERIFY = 20.0  # s: as a session waits


@dataclass(frozen=True)
class Account:
    """What an account gave."""

    url: str  # answered through ngrok, and is gone again
    seconds: float  # from starting an agent to the URL's answer
    several: bool  # a second URL beside it
    reason: str


@dataclass
class _Word:
    """An entrance that answers everything with one word."""

    word: bytes
    number: int = 0

    async def answer(self, stream: trio.SocketStream) -> None:
        await stream.receive_some(65536)
        head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(self.word)
        await stream.send_all(head + self.word)
        await stream.send_eof()


async def try_account(authtoken: str | None, log: Log, patience: Patience) -> Account:
    """Start an agent of its own, open a URL, ask it, and ask for a second one; all of it is gone on return, or cancelled.

    Raises `TunnelError`, in a group once the agent was started.
    """
    began = trio.current_time()
    with TemporaryDirectory(prefix="footlight-") as folder:  # not the daemon's, whose agent would count as left behind
        async with _listening() as word, open_ngrok(Path(folder), authtoken, log, patience) as agent:
            async with agent.endpoint(word.number) as tunnel:
                await verify(tunnel.url + "/", word.word, headers={}, deadline=_VERIFY)
                seconds = trio.current_time() - began
                several, reason = await allows_urls_per_session(agent, word)
                return Account(tunnel.url, seconds, several, reason)


@asynccontextmanager
async def _listening() -> AsyncIterator[_Word]:
    word = _Word(secrets.token_hex(16).encode())
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        word.number = listeners[0].socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, word.answer, listeners)
        try:
            yield word
        finally:
            nursery.cancel_scope.cancel()
