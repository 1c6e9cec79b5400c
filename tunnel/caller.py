"""pyngrok's calls in threads, each with an end: one that takes too long loses its agent, and then it returns."""

import signal
from collections.abc import Callable
from typing import Any, TypeVar

import trio

from tunnel import TunnelError
from tunnel.codes import error_of
from tunnel.leash import Leash

_T = TypeVar("_T")
_THREAD_END = 2.0  # s: once its agent has been killed


class Caller:
    """Runs calls against one agent."""

    def __init__(self, leash: Leash, margin: float) -> None:
        self._leash = leash
        self._margin = margin  # s that a call may take longer than its timeout

    async def __call__(self, timeout: float, call: Callable[..., _T], *args: Any) -> _T:
        """What the call, given its timeout as the last argument, returns or raises; `ngrok_hangs` and no agent if it does not.

        Not cancelled half-way: what an abandoned call does to the agent, nobody would know of.
        """
        answers: list[_T | TunnelError] = []
        answered = trio.Event()

        def guarded() -> _T | TunnelError:
            try:
                return call(*args, timeout)
            except TunnelError as error:
                return error

        async def run() -> None:
            answers.append(await trio.to_thread.run_sync(guarded, abandon_on_cancel=True))
            answered.set()

        deadline = timeout + self._margin
        with trio.CancelScope(shield=True, relative_deadline=deadline + _THREAD_END):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run)
                with trio.move_on_after(deadline) as waiting:
                    await answered.wait()
                if waiting.cancelled_caught:
                    self._leash.signal(signal.SIGKILL)
        if waiting.cancelled_caught or not answers:
            raise error_of("ngrok_hangs")
        answer = answers[0]
        if isinstance(answer, TunnelError):
            raise answer
        return answer
