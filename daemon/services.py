"""Tasks that outlive the cancellation of the body they serve.

In a plain nursery a cancellation reaches the body and its helpers at once. A session's clients must still be told how it
ended, so its listener is cancelled only after the body has left (the idea is tricycle's service nursery).
"""

from collections.abc import Awaitable, Callable
from contextvars import copy_context
from functools import partial
from math import inf
from types import TracebackType
from typing import Any, Self

import trio


class Services:
    """Made by `open_services`. A class, as each session has one: a generator takes 1 KB more."""

    nursery: trio.Nursery

    def __init__(self) -> None:
        self._opening = trio.open_nursery()
        self._context = copy_context()
        self._scopes: set[trio.CancelScope] = set()
        self._leaving = False

    async def __aenter__(self) -> Self:
        self.nursery = await self._opening.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        self.leave()
        return await self._opening.__aexit__(kind, error, traceback)

    async def start(self, serve: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """Run a task until the body has left; what it gives to `task_status.started`."""
        return await self.nursery.start(partial(self.outlive, serve, *args))

    def start_soon(self, serve: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """The same for a task that has no ready moment."""
        # In the context of who opened the services: a request that asks for a session would otherwise live as long as that.
        self._context.run(self.nursery.start_soon, partial(self.outlive, serve, *args))

    async def outlive(self, serve: Callable[..., Awaitable[Any]], *args: Any, **options: Any) -> None:
        """Await a call that a cancellation from outside reaches only once the body has left.

        Where it has a ready moment this holds from then on: before, it serves nobody, and the body may be waiting for it.
        """
        status: trio.TaskStatus[Any] | None = options.get("task_status")
        # This shield needs no deadline: it ends with the body, and nothing shields the body.
        with trio.CancelScope(shield=status is None and not self._leaving, deadline=inf) as scope:
            if status is not None:
                options["task_status"] = _Started(status, partial(self._shield, scope, trio.lowlevel.current_task()))
            self._scopes.add(scope)
            try:
                await serve(*args, **options)
            finally:
                self._scopes.discard(scope)

    def _shield(self, scope: trio.CancelScope, task: trio.lowlevel.Task) -> None:
        # Where the start was cancelled meanwhile, Trio leaves the task with its starter, who waits for its end.
        scope.shield = not self._leaving and task.parent_nursery is self.nursery

    def leave(self) -> None:
        """The body has left: from now on its cancellation is theirs."""
        self._leaving = True
        for scope in self._scopes:
            scope.shield = False
        self.nursery.cancel_scope.cancel()


class _Started:
    """A task status that says when the task was ready."""

    def __init__(self, status: trio.TaskStatus[Any], then: Callable[[], None]) -> None:
        self._status = status
        self._then = then

    def started(self, value: Any = None) -> None:
        self._status.started(value)
        self._then()


def open_services() -> Services:
    """A nursery whose tasks are cancelled when the body has left, not before; a crash of one cancels the body."""
    return Services()
