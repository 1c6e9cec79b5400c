"""What somebody who joins in the middle is told."""

from daemon.journal.present import OpenBlock, OpenOutput, Present


def test_nothing_is_told_when_no_block_is_open():
    assert Present().deltas() == []


def test_nothing_is_told_when_no_text_has_come_yet():
    assert Present(OpenBlock(1, 0, "text"), OpenOutput("t")).deltas() == []


def test_everything_so_far_is_told_in_one_delta_when_a_block_is_open():
    present = Present(OpenBlock(2, 1, "thinking", ["Let ", "me ", "see"], 10))
    expected = {"turn": 2, "block": 1, "position": 0, "text": "Let me see"}
    assert present.deltas() == [("claude_thinking_delta", expected)]


def test_what_a_running_tool_printed_so_far_is_told_at_once():
    present = Present(output=OpenOutput("t", ["one\n", "two\n"], 8))
    assert present.deltas() == [("tool_output", {"tool_use_id": "t", "position": 0, "text": "one\ntwo\n"})]


def test_calls_that_wait_are_pending_as_their_event_said():
    said = {"tool_use_id": "t", "tool": "bash", "input": {}}
    assert Present(approvals={"t": said}).pending() == {"approvals": [said], "running_tools": []}


def test_running_tools_are_pending_as_their_event_said():
    said = {"turn": 1, "tool_use_id": "t", "tool": "bash", "input": {}}
    present = Present(running_tools={"t": said})
    assert present.pending() == {"approvals": [], "running_tools": [said]}
    del present.running_tools["t"]
    assert present.pending() == {"approvals": [], "running_tools": []}
