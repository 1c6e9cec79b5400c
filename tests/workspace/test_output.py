"""A command's output: safe, bounded, and shown as it comes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.workspace.output import TRUNCATED, Output


def fed(limit: int, *pieces: bytes) -> tuple[str, list[str]]:
    shown: list[str] = []
    output = Output(limit, shown.append)
    for piece in pieces:
        output.feed(piece)
    return output.text(), shown


def test_text_is_whole_up_to_the_limit_and_cut_in_the_middle_beyond():
    assert fed(100, b"a" * 60, b"b" * 40)[0] == "a" * 60 + "b" * 40
    assert fed(100, b"a" * 60, b"b" * 41)[0] == "a" * 60 + "b" * 15 + TRUNCATED.format(size=101) + "b" * 25


def test_beginning_is_shown_as_it_comes_and_no_more():
    _, shown = fed(100, b"one", b"two" * 20, b"x" * 1000)
    assert shown == ["one", "two" * 20, "x" * 12]


def test_flood_costs_no_memory():
    output = Output(100)
    for _ in range(1000):
        output.feed(b"y\n" * 50_000)
    assert output.size == 100_000_000
    assert output.full
    assert len(output.text()) < 300


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\x1b[31mred\x1b[0m", "\ufffd[31mred\ufffd[0m"),
        (b"\x1b]0;title\x07", "\ufffd]0;title\ufffd"),
        (b"a\r\nb\rc\n", "a\nb\nc\n"),
        (b"\xff\xfe\0", "\ufffd\ufffd\ufffd"),
        ("\u202egnp.exe\u2066".encode(), "\ufffdgnp.exe\ufffd"),
        ("tab\tand ü €".encode(), "tab\tand ü €"),
    ],
)
def test_what_could_move_a_cursor_or_reorder_a_line_is_replaced(data, text):
    assert fed(1000, data)[0] == text


@given(st.lists(st.binary(max_size=30), max_size=20))
def test_pieces_do_not_matter(pieces):
    whole = b"".join(pieces)
    text, shown = fed(4000, *pieces)
    assert text == fed(4000, whole)[0]
    assert text.startswith("".join(shown))  # a character that is not complete is not shown yet
    text.encode()
    assert not set(text) & {chr(code) for code in [*range(9), 11, 12, *range(13, 32), 0x7F, *range(0x80, 0xA0)]}
