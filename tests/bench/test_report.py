"""What a figure says of its rounds."""

import pytest

from bench.fanout import ratios
from bench.report import Figure, percentile


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([3.0, 1.0, 2.0], 0.5, 2.0), ([1.0], 0.99, 1.0), (list(range(100)), 0.99, 99), (list(range(1000)), 0.5, 500)],
)
def test_percentile(values, share, expected):
    assert percentile(values, share) == expected


def test_figure_is_judged_by_the_median_of_its_rounds():
    assert Figure("", [1, 9, 2], "x", at_most=2).met is True
    assert Figure("", [1, 9, 3], "x", at_most=2).met is False
    assert Figure("", [1, 9, 3], "x", at_least=3).met is True
    assert Figure("", [1], "x").met is None


def test_ratios_compare_round_by_round_and_the_best_peer_is_no_limit():
    costs = {"footlight": [2.0, 6.0], "limit, C": [1.0, 1.0], "fast": [4.0, 12.0], "slow": [8.0, 6.0]}
    found = {figure.what: figure for figure in ratios(costs, {"fast": 0.4, "the best peer": 1.0})}
    assert list(found["footlight / limit, C"].rounds) == [2.0, 6.0]
    assert list(found["footlight / fast"].rounds) == [0.5, 0.5]
    assert found["footlight / fast"].met is False
    assert list(found["footlight / the best peer"].rounds) == [0.5, 1.0]
    assert found["footlight / the best peer"].met is True
    assert found["footlight / slow"].met is None
