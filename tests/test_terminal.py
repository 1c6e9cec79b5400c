"""What a person sees: every word once, and nothing that their terminal would obey."""

import io
from typing import Any

import pytest
from rich.console import Console

from daemon.terminal import Transcript, in_one_line, printable, size

USAGE = {"input_tokens": 10, "output_tokens": 3}
DONE = {"turn": 1, "stop_reason": "end_turn", "is_error": False, "duration_ms": 1234, "usage": USAGE}


def event(kind: str, **data: Any) -> dict[str, Any]:
    return {"event": kind, "data": data}


def delta(position: int, text: str, *, block: int = 0, turn: int = 1) -> dict[str, Any]:
    return event("claude_text_delta", turn=turn, block=block, position=position, text=text)


def text(whole: str, *, block: int = 0, turn: int = 1) -> dict[str, Any]:
    return event("claude_text", turn=turn, block=block, text=whole)


def shown(*events: dict[str, Any], terminal: bool = False) -> str:
    out = io.StringIO()
    transcript = Transcript(Console(file=out, highlight=False, force_terminal=terminal, width=40))
    for each in events:
        transcript.show(each)
    return out.getvalue()


# --- text grows in place


def test_block_that_came_as_deltas_is_printed_once():
    assert shown(delta(0, "Hal"), delta(3, "ftide"), text("Halftide")) == "Halftide\n"


def test_end_of_a_block_that_no_delta_said_is_printed_with_the_block():
    assert shown(delta(0, "Hal"), text("Halftide")) == "Halftide\n"


def test_block_without_deltas_is_printed_whole():
    assert shown(text("Halftide")) == "Halftide\n"


def test_block_is_whole_when_a_delta_was_skipped():
    assert shown(delta(0, "Ha"), delta(4, "ti"), delta(6, "de"), text("Halftide")) == "Halftide\n"


def test_delta_with_everything_so_far_repeats_nothing():
    assert shown(delta(0, "Half"), delta(0, "Halfti"), delta(6, "de"), text("Halftide")) == "Halftide\n"


def test_repeated_block_is_not_printed_again():
    assert shown(text("Halftide"), text("Halftide")) == "Halftide\n"


def test_blocks_of_one_turn_have_lines_of_their_own():
    assert shown(text("one"), text("two", block=1)) == "one\ntwo\n"


def test_block_that_ends_in_a_newline_gets_no_second_one():
    assert shown(text("one\n"), text("two", block=1)) == "one\ntwo\n"


def test_same_block_number_in_the_next_turn_is_another_block():
    start = event("turn_start", turn=2, prompt="more", message_id="m")
    assert shown(text("one"), start, text("two", turn=2)) == "one\n\n▸ more\ntwo\n"


def test_blocks_of_earlier_turns_are_forgotten():
    transcript = Transcript(Console(file=io.StringIO()))
    for turn in range(1, 4):
        transcript.show(event("turn_start", turn=turn, prompt="more", message_id="m"))
        transcript.show(text("one", turn=turn))
    assert len(transcript._shown) == 1


def test_thinking_is_printed_once():
    grown = event("claude_thinking_delta", turn=1, block=0, position=0, text="Hm")
    assert shown(grown, event("claude_thinking", turn=1, block=0, thinking="Hmm")) == "Hmm\n"


def test_tool_call_in_the_middle_of_a_line_begins_a_new_one():
    use = event("claude_tool_use", turn=1, tool_use_id="t", tool="write", input={"file_path": "a.css", "content": "é"})
    assert shown(delta(0, "And"), use) == "And\n  ● write a.css  2 B\n"


def test_long_line_is_not_broken_where_it_is_piped():
    assert shown(text("word " * 40)) == "word " * 40 + "\n"


def test_markup_of_the_agent_is_shown_as_it_is():
    assert shown(text("[bold red]x[/] [link=http://evil]y[/link]")) == "[bold red]x[/] [link=http://evil]y[/link]\n"


# --- the other events


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (event("turn_start", turn=1, prompt="Build it", message_id="m"), "\n▸ Build it\n"),
        (
            event("claude_tool_result", turn=1, tool_use_id="t", result="no such file", is_error=True),
            "    no such file\n",
        ),
        (event("claude_tool_result", turn=1, tool_use_id="t", result="fine", is_error=False), ""),
        (event("turn_complete", **DONE), "\n  ✓ turn 1: end_turn after 1.2 s, 10 tokens in, 3 out\n"),
        (event("turn_retry", turn=1, attempt=2, reason="overloaded", blocks=[0]), "  ↻ overloaded: trying again\n"),
        (event("agent_error", error="529: busy", error_type="overloaded_error"), "  ! overloaded_error: 529: busy\n"),
        (
            event("approval_required", tool_use_id="t", tool="bash", input={}),
            "    ? bash waits for a person's approval\n",
        ),
        (event("approval_resolved", tool_use_id="t", decision="approve", client_id=1, reason=None), ""),
        (event("approval_resolved", tool_use_id="t", decision="deny", client_id=1, reason="no"), "    deny: no\n"),
        (event("preview_error", path="/", message="x\ny", source="", line=0, column=0), "  ! in the preview, /: x …\n"),
        (event("session_end", reason="stopped"), "\n  session ended: stopped\n"),
        (event("client_joined", client_id=1), ""),
        (event("an_event_of_a_later_version", x=1), ""),
    ],
)
def test_event_is_shown(said, expected):
    assert shown(said) == expected


def test_pages_are_listed():
    pages = [
        {"path": "index.html", "title": "Home", "url": "u", "sections": ["a", "b"]},
        {"path": "menu.html", "title": "Menu", "url": "u", "sections": []},
    ]
    said = shown(event("pages_discovered", pages=pages, total_pages=2))
    assert said == "\n  2 page(s):\n  ○ Home  /index.html  2 sections\n  ○ Menu  /menu.html\n"


@pytest.mark.parametrize("given", [None, "text", [1], {"file_path": 7, "content": 8}, {"command": ["ls"]}])
def test_tool_call_with_an_odd_input_is_shown(given):
    said = shown(event("claude_tool_use", turn=1, tool_use_id="t", tool="bash", input=given))
    assert said.startswith("  ● bash")
    assert said.count("\n") == 1


# --- an agent cannot speak to the terminal

_CONTROL = [*map(chr, range(9)), *map(chr, range(11, 32)), *map(chr, range(127, 160)), "\u202e", "\u2066", "\u2028"]
HOSTILE = "a\x1b[2J\x1b]0;title\x07\x9b31mb\rc\x08\x7f\u202ed"


def _everywhere(bad: str) -> list[dict[str, Any]]:
    page = {"path": bad, "title": bad, "url": bad, "sections": [bad]}
    return [
        event("turn_start", turn=1, prompt=bad, message_id="m"),
        delta(0, bad),
        text(bad),
        event("claude_thinking_delta", turn=1, block=1, position=0, text=bad),
        event("claude_thinking", turn=1, block=1, thinking=bad),
        event("claude_tool_use", turn=1, tool_use_id=bad, tool=bad, input={"file_path": bad, "content": bad}),
        event("claude_tool_use", turn=1, tool_use_id=bad, tool=bad, input={"command": bad}),
        event("claude_tool_result", turn=1, tool_use_id=bad, result=bad, is_error=True),
        event("pages_discovered", pages=[page], total_pages=1),
        event("approval_required", tool_use_id=bad, tool=bad, input={}),
        event("approval_resolved", tool_use_id=bad, decision=bad, client_id=1, reason=bad),
        event("preview_error", path=bad, message=bad, source=bad, line=1, column=1),
        event("turn_retry", turn=1, attempt=1, reason=bad, blocks=[]),
        event("agent_error", error=bad, error_type=bad),
        event("turn_complete", **{**DONE, "stop_reason": bad}),
        event("session_end", reason=bad),
    ]


@pytest.mark.parametrize("said", _everywhere(HOSTILE), ids=lambda said: said["event"])
def test_escape_sequences_of_an_event_are_not_passed_on(said):
    printed = shown(said)
    assert not [character for character in _CONTROL if character in printed]


def test_only_our_own_colours_reach_a_terminal():
    assert "\x1b[2J" not in (printed := shown(*_everywhere(HOSTILE), terminal=True))
    assert "\x1b]" not in printed
    assert "\x1b[1" in printed  # ours are there


def test_escape_sequence_that_is_split_over_deltas_is_not_passed_on():
    assert "\x1b" not in shown(delta(0, "a\x1b"), delta(2, "[2J"), text("a\x1b[2Jb"))


def test_neutralised_text_still_grows_by_position():
    assert shown(delta(0, "a\x1b"), delta(2, "b"), text("a\x1bbc")) == "a\ufffdbc\n"


def test_tool_call_cannot_forge_lines():
    forged = "ls\n  ✓ turn 1: end_turn after 1.0 s"
    said = shown(event("claude_tool_use", turn=1, tool_use_id="t", tool="bash", input={"command": forged}))
    assert said == "  ● bash ls …\n"


def test_title_of_a_page_cannot_forge_lines():
    page = {"path": "a\nb", "title": "x\n\n  ○ y", "url": "", "sections": []}
    assert shown(event("pages_discovered", pages=[page], total_pages=1)).count("\n") == 3


@pytest.mark.parametrize("character", _CONTROL, ids=lambda character: f"U+{ord(character):04X}")
def test_character_that_a_terminal_obeys_is_replaced(character):
    assert printable(f"a{character}b") == "a\ufffdb"


def test_what_people_write_is_kept():
    assert printable(kept := "naïve\t→ 日本 👩‍🍳\n") == kept


@pytest.mark.parametrize(("value", "line"), [("", ""), ("a", "a"), ("\n a \n", "a"), ("a\nb", "a …"), (7, "7")])
def test_first_line_stands_for_a_text(value, line):
    assert in_one_line(value) == line


@pytest.mark.parametrize(("count", "words"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (2_500_000, "2.5 MB")])
def test_size_is_said_for_people(count, words):
    assert size(count) == words
