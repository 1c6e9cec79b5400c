"""Calls that a crash cut: the journal knows what became of each."""

import msgspec
import pytest

from daemon.agent.unfinished import NOT_BEGUN, UNKNOWN, answers, end_turn
from daemon.journal.journal import open_journal
from daemon.sessions.record import Usage

COMPLETE = {"turn": 1, "stop_reason": "end_turn", "is_error": False, "duration_ms": 1, "usage": Usage()}
END = {"reason": "interrupted", "turn_count": 1, "detail": None, "processes_killed": 0}


@pytest.fixture
def journal(tmp_path):
    with open_journal("abc", tmp_path, limit=1 << 20) as (journal, _):
        yield journal


def begin(journal, name):
    journal.append("claude_tool_use", turn=1, tool_use_id=name, tool="bash", input={})


def end(journal, name, text="done", *, is_error=False):
    journal.append("claude_tool_result", turn=1, tool_use_id=name, result=text, is_error=is_error, duration_ms=1)


def ask(journal, name):
    journal.append("approval_required", tool_use_id=name, tool="bash", input={})


def decide(journal, name, decision):
    journal.append("approval_resolved", tool_use_id=name, decision=decision, client_id=1, reason=None)


def start(journal, turn):
    journal.append("turn_start", turn=turn, prompt="go", message_id="m")


def told(journal, *names):
    found = answers([{"type": "tool_use", "id": name, "name": "bash", "input": {}} for name in names], journal)
    assert [answer["tool_use_id"] for answer in found] == [*names]
    return [(answer["content"], answer["is_error"]) for answer in found]


def test_each_call_gets_its_true_answer(journal):
    start(journal, 1)
    begin(journal, "a")
    end(journal, "a", "first")
    begin(journal, "b")
    end(journal, "b", "second", is_error=True)
    begin(journal, "c")
    journal.append("session_end", **END)
    assert told(journal, "a", "b", "c", "d") == [
        ("first", False), ("second", True), (UNKNOWN, True), (NOT_BEGUN, True)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("decision", "answer"), [(None, NOT_BEGUN), ("approve", UNKNOWN), ("deny", NOT_BEGUN), ("cancelled", NOT_BEGUN)]
)
def test_call_that_waited_for_a_person_may_have_run_only_after_a_yes(journal, decision, answer):
    start(journal, 1)
    begin(journal, "a")
    ask(journal, "a")
    if decision is not None:
        decide(journal, "a", decision)
    assert told(journal, "a") == [(answer, True)]


def test_result_far_back_in_the_turn_is_found(journal):
    start(journal, 1)
    begin(journal, "a")
    end(journal, "a")
    for name in range(300):
        begin(journal, f"b{name}")
        end(journal, f"b{name}")
    assert told(journal, "a", "b0", "b299", "c") == [("done", False)] * 3 + [(NOT_BEGUN, True)]


def test_calls_of_an_earlier_turn_do_not_count(journal):
    start(journal, 1)
    begin(journal, "a")
    end(journal, "a")
    start(journal, 2)
    assert told(journal, "a") == [(NOT_BEGUN, True)]


def test_nothing_is_taken_for_not_run_where_the_journal_has_a_hole(tmp_path):
    with open_journal("abc", tmp_path, limit=20_000) as (journal, _):
        start(journal, 1)
        begin(journal, "a")
        end(journal, "a")
        begin(journal, "b")
        for _ in range(20):
            journal.append("claude_text", turn=1, block=1, text="x" * 2000)
        begin(journal, "c")
        end(journal, "c")
        assert journal.first > 4
        assert told(journal, "a", "b", "c", "d") == [(UNKNOWN, True), (UNKNOWN, True), ("done", False), (UNKNOWN, True)]


def test_damaged_event_is_such_a_hole(tmp_path):
    with open_journal("abc", tmp_path, limit=1 << 20) as (journal, _):
        start(journal, 1)
        begin(journal, "a")
        end(journal, "a", "spoilt")
        begin(journal, "b")
        end(journal, "b")
        file = journal.folder / "000000000001.frames"
    file.write_bytes(file.read_bytes().replace(b"spoilt", b"SPOILT"))
    with open_journal("abc", tmp_path, limit=1 << 20) as (journal, found):
        assert found.damaged == 1
        assert told(journal, "a", "b", "c") == [(UNKNOWN, True), ("done", False), (UNKNOWN, True)]


def test_no_call_needs_no_answer(journal):
    assert told(journal) == []


def written(journal, after):
    chunk = journal.read(after)
    events = [] if chunk is None else map(msgspec.json.decode, journal.payloads(after, chunk))
    return [(event["event"], event["data"]) for event in events]


def test_cut_turn_is_ended_with_a_result_for_each_of_its_calls(journal):
    start(journal, 1)
    journal.append("turn_complete", **COMPLETE)
    start(journal, 2)
    begin(journal, "a")
    end(journal, "a")
    begin(journal, "b")
    ask(journal, "b")
    begin(journal, "c")
    ask(journal, "c")
    decide(journal, "c", "approve")
    begin(journal, "d")
    before = journal.offset
    end_turn(journal)
    no_usage = dict.fromkeys(Usage.__struct_fields__, 0)
    found = written(journal, before)
    assert [kind for kind, _ in found] == ["approval_resolved", *["claude_tool_result"] * 3, "turn_complete"]
    assert (found[0][1]["tool_use_id"], found[0][1]["decision"], found[0][1]["client_id"]) == ("b", "cancelled", None)
    assert [(data["turn"], data["tool_use_id"], data["result"], data["is_error"]) for _, data in found[1:4]] == [
        (2, "b", NOT_BEGUN, True), (2, "c", UNKNOWN, True), (2, "d", UNKNOWN, True)
    ]  # fmt: skip
    ended = found[4][1]
    assert 0 <= ended.pop("duration_ms") < 60_000
    assert ended == {"turn": 2, "stop_reason": "interrupted", "is_error": False, "usage": no_usage}
    assert told(journal, "a", "b", "c", "d", "e") == [
        ("done", False), (NOT_BEGUN, True), (UNKNOWN, True), (UNKNOWN, True), (NOT_BEGUN, True)
    ]  # fmt: skip


def test_cut_turn_is_ended_once_wherever_that_was_cut(tmp_path):
    with open_journal("abc", tmp_path / "whole", limit=1 << 20) as (journal, _):
        start(journal, 1)
        begin(journal, "a")
        ask(journal, "a")
        begin(journal, "b")
        end_turn(journal)
        whole = [kind for kind, _ in written(journal, 0)]
        events = written(journal, 0)
    for length in range(4, len(events) + 1):
        with open_journal("abc", tmp_path / str(length), limit=1 << 20) as (journal, _):
            for kind, data in events[:length]:
                journal.append(kind, **data)
            end_turn(journal)
            end_turn(journal)
            assert [kind for kind, _ in written(journal, 0)] == whole


@pytest.mark.parametrize("last", [None, ("turn_complete", COMPLETE), ("session_end", END)])
def test_nothing_is_written_where_no_turn_was_cut(journal, last):
    if last:
        start(journal, 1)
        journal.append(last[0], **last[1])
    else:
        journal.append("session_start", prompt="go", model="scripted", work_dir="workspace")
    journal.append("websocket_ready", websocket_url="ws://x", session_id="abc")
    before = journal.offset
    end_turn(journal)
    assert journal.offset == before
