"""Pauses between attempts: growing, capped, jittered."""

from hypothesis import given
from hypothesis import strategies as st

from tunnel.backoff import Backoff


def test_spans_double_up_to_the_longest_and_begin_anew_after_a_success() -> None:
    spans: list[tuple[float, float]] = []

    def draw(low: float, high: float) -> float:
        spans.append((low, high))
        return high

    backoff = Backoff(0.5, 3.0, draw)
    assert [backoff.next() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert spans[-1] == (1.5, 3.0)
    backoff.reset()
    assert backoff.next() == 0.5


@given(st.integers(1, 40))
def test_pause_is_never_nothing_and_never_longer_than_the_longest(count) -> None:
    backoff = Backoff(0.5, 30.0)
    for _ in range(count):
        assert 0.25 <= backoff.next() <= 30.0


def test_two_that_failed_together_do_not_return_together() -> None:
    one, two = Backoff(), Backoff()
    assert [one.next() for _ in range(5)] != [two.next() for _ in range(5)]
