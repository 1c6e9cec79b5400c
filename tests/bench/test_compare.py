"""What the comparison of two commits says of their runs."""

from bench.compare import report


def test_ratios_are_those_of_the_runs_that_stood_side_by_side():
    first = [{"a": (2.0, "us"), "gone": (1.0, "")}, {"a": (4.0, "us"), "gone": (1.0, "")}, {"a": (1.0, "us")}]
    second = [{"a": (1.0, "us"), "new": (1.0, "")}, {"a": (4.0, "us")}, {"a": (2.0, "us")}]
    assert list(report(["one", "two"], first, second))[2:] == ["| a (us) | 2 | 2 | 1 | 0.5 - 2 |"]


def test_what_was_nothing_has_no_ratio():
    assert len(list(report(["one", "two"], [{"a": (0.0, "")}], [{"a": (1.0, "")}]))) == 2
