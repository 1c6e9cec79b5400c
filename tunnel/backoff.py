"""How long to wait before the next attempt: capped and jittered, so that many who failed together do not return together."""

import random
from collections.abc import Callable


class Backoff:
    """Pauses in seconds: each is drawn from the upper half of a span that doubles up to `longest`."""

    def __init__(
        self, first: float = 0.5, longest: float = 30.0, draw: Callable[[float, float], float] = random.uniform
    ) -> None:
        self._first = self._span = first
        self._longest = longest
        self._draw = draw

    def next(self) -> float:
        """The pause before the next attempt."""
        span, self._span = self._span, min(self._longest, 2 * self._span)
        return self._draw(span / 2, span)

    def reset(self) -> None:
        """It went well: the next trouble is a new one."""
        self._span = self._first
