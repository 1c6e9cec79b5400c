"""What HTTP says of a file."""

from email.utils import parsedate_to_datetime

import pytest

from daemon.workspace.media import content_type, last_modified, modified, tag_of, unchanged

NOON = 1_795_521_600 * 10**9
YEARS = [-(10**30), -1, 0, 10**17, NOON, 5 * 10**18, 10**30]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.html", "text/html; charset=utf-8"),
        ("A.HTM", "text/html; charset=utf-8"),
        ("a/b.js", "text/javascript; charset=utf-8"),
        ("a.svg", "image/svg+xml; charset=utf-8"),
        ("a.woff2", "font/woff2"),
        ("a.png", "image/png"),
        ("a.html/b", "application/octet-stream"),
        (".html", "application/octet-stream"),
        ("", "application/octet-stream"),
    ],
)
def test_type_is_read_off_the_name(name, kind):
    assert content_type(name) == kind


@pytest.mark.parametrize("mtime_ns", YEARS)
def test_any_time_of_a_file_is_one_that_can_be_said(mtime_ns):
    assert 1980 <= modified(mtime_ns).year <= 2107
    assert parsedate_to_datetime(last_modified(mtime_ns)).year == modified(mtime_ns).year


def test_tag_changes_with_size_and_time():
    assert len({tag_of(1, NOON), tag_of(2, NOON), tag_of(1, NOON + 1)}) == 3


@pytest.mark.parametrize(
    ("none_match", "modified_since", "known"),
    [
        ('"t"', None, True), ('W/"t"', None, True), ('"x", "t"', None, True), ("*", None, True),
        ('"x"', None, False), ("", None, False), ("t", None, False),
        (None, "Tue, 24 Nov 2026 12:00:00 GMT", True), (None, "Tue, 24 Nov 2026 11:59:59 GMT", False),
        (None, "yesterday", False), (None, "", False), (None, None, False),
        ('"x"', "Tue, 24 Nov 2026 12:00:00 GMT", False),
    ],
)  # fmt: skip
def test_file_is_unchanged_for_who_has_it(none_match, modified_since, known):
    assert unchanged('"t"', NOON, none_match=none_match, modified_since=modified_since) is known
