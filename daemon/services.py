"""Tasks that outlive the cancellation of the body they serve.

In a plain nursery a cancellation reaches the body and its helpers at once. A session's clients must still be told how it
ended, so its listener is cancelled only after the body has left (the idea is tricycle's service nursery).
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from math import inf
from typing import Any

import trio


class Services:
    """Made by `open_services`."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self._scopes: set[trio.CancelScope] = set()
        self._leaving = False

    async def start(self, serve: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """Run a task until the body has left; what it gives to `task_status.started`."""
        return await self.nursery.start(partial(self.outlive, serve, *args))

    def start_soon(self, serve: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """The same for a task that has no ready moment."""
        self.nursery.start_soon(partial(self.outlive, serve, *args))

    async def outlive(self, serve: Callable[..., Awaitable[Any]], *args: Any, **options: Any) -> None:
        """Await a call that a cancellation from outside reaches only once the body has left."""
        # This shield needs no deadline: it ends with the body, and nothing shields the body.
        with trio.CancelScope(shield=not self._leaving, deadline=inf) as scope:
            self._scopes.add(scope)
            try:
                await serve(*args, **options)
            finally:
                self._scopes.discard(scope)

    def leave(self) -> None:
        """The body has left: from now on its cancellation is theirs."""
        self._leaving = True
        for scope in self._scopes:
            scope.shield = False
        self.nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_services() -> AsyncIterator[Services]:
    """A nursery whose tasks are cancelled when the body has left, not before; a crash of one cancels the body."""
    async with trio.open_nursery() as nursery:
        services = Services(nursery)
        try:
            yield services
        finally:
            services.leave()
