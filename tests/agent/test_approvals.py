"""Tool calls that wait for a person, in a session's agent."""

from typing import Any

import pytest
import trio

from daemon.agent.calling import NOT_RUN
from daemon.errors import CallerError
from tests.agent.stage import Play, check_conversation, open_stage
from tests.support import kinds, steps_of

TWO_FILES = """
[[turn]]
[[turn.step]]
[[turn.step.tool]]
name = "write"
input = { file_path = "a.txt", content = "a" }
[[turn.step.tool]]
name = "read"
input = { file_path = "a.txt" }
[[turn.step]]
text = "Done."
"""


async def answering(play: Play, *verdicts: tuple[bool, str | None]) -> list[dict[str, Any]]:
    """One turn in which the calls that wait get these verdicts in turn; the events that it journaled."""
    async with trio.open_nursery() as nursery:

        async def answer() -> None:
            for number, (approved, reason) in enumerate(verdicts, 1):
                await play.until(lambda events, number=number: kinds(events).count("approval_required") == number)
                (name,) = play.present.approvals
                assert play.present.running_tools == {}
                play.agent.approvals.resolve(name, approved=approved, client_id=number, reason=reason)
                assert play.present.approvals == {}

        nursery.start_soon(answer)
        events = await play.prompt("go")
    check_conversation(play.conversation.messages)
    return events


async def test_approved_call_runs_after_its_question_and_answer(tmp_path):
    async with open_stage(tmp_path, TWO_FILES) as stage, stage.play(approval="ask") as play:
        events = await answering(play, (True, None), (True, "fine"))
        assert kinds(events) == [
            "turn_start",
            *("claude_tool_use", "approval_required", "approval_resolved", "claude_tool_result", "files_changed"),
            *("claude_tool_use", "approval_required", "approval_resolved", "claude_tool_result"),
            "claude_text", "turn_complete",
        ]  # fmt: skip
        use, required, resolved = (event["data"] for event in events[1:4])
        assert required == {name: use[name] for name in ("tool_use_id", "tool", "input")}
        assert resolved == {
            "tool_use_id": use["tool_use_id"], "decision": "approve", "client_id": 1, "reason": None
        }  # fmt: skip
        assert play.of("approval_resolved")[1]["reason"] == "fine"
        assert play.text("a.txt") == "a"


@pytest.mark.parametrize(
    ("reason", "told"), [("not that file", "denied by a person: not that file"), (None, "denied by a person")]
)
async def test_denied_call_is_not_run_and_its_reason_goes_to_the_model(tmp_path, reason, told):
    async with open_stage(tmp_path, TWO_FILES) as stage, stage.play(approval="ask") as play:
        events = await answering(play, (False, reason), (True, None))
        assert play.of("approval_resolved")[0]["decision"] == "deny"
        assert "files_changed" not in kinds(events)
        assert play.workspace.files() == []
        denied = play.of("claude_tool_result")[0]
        assert (denied["result"], denied["is_error"], denied["duration_ms"]) == (told, True, 0)
        assert play.conversation.messages[2]["content"][0]["content"] == told
        assert events[-1]["data"]["stop_reason"] == "end_turn"


async def test_second_answer_is_refused_and_changes_nothing(tmp_path):
    async with open_stage(tmp_path, TWO_FILES) as stage, stage.play(approval="ask") as play:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(play.prompt, "go")
            for approved in (False, True):
                await play.until(lambda _: bool(play.present.approvals))
                (name,) = play.present.approvals
                play.agent.approvals.resolve(name, approved=approved, client_id=1, reason=None)
                with pytest.raises(CallerError) as refused:
                    play.agent.approvals.resolve(name, approved=not approved, client_id=2, reason=None)
                assert refused.value.code == "no_such_approval"
        assert [data["decision"] for data in play.of("approval_resolved")] == ["deny", "approve"]
        with pytest.raises(CallerError, match="waits for an answer"):
            play.agent.approvals.resolve(name, approved=True, client_id=2, reason=None)


async def test_only_the_tools_that_are_named_wait_where_some_are(tmp_path):
    async with open_stage(tmp_path, TWO_FILES, ask_for=("read",)) as stage, stage.play(approval="ask") as play:
        events = await answering(play, (True, None))
        assert [data["tool"] for data in play.of("approval_required")] == ["read"]
        assert kinds(events).count("files_changed") == 1


async def test_no_call_waits_where_nobody_is_to_be_asked(tmp_path):
    async with open_stage(tmp_path, TWO_FILES, ask_for=("read",)) as stage, stage.play() as play:
        assert "approval_required" not in kinds(await play.prompt("go"))


async def test_turn_interrupted_while_a_call_waits_says_so_and_runs_nothing(tmp_path):
    async with open_stage(tmp_path, TWO_FILES) as stage, stage.play(approval="ask") as play:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(play.prompt, "go")
            await play.until(lambda events: "approval_required" in kinds(events))
            (name,) = play.present.approvals
            play.agent.interrupt()
        assert kinds(play.journaled())[-3:] == ["approval_resolved", "claude_tool_result", "turn_complete"]
        (resolved,) = play.of("approval_resolved")
        assert (resolved["decision"], resolved["client_id"]) == ("cancelled", None)
        assert resolved["reason"]
        assert play.of("claude_tool_result")[0]["result"] == NOT_RUN
        assert play.of("turn_complete")[0]["stop_reason"] == "interrupted"
        assert play.present.approvals == {}
        assert play.workspace.files() == []
        check_conversation(play.conversation.messages)
        with pytest.raises(CallerError):
            play.agent.approvals.resolve(name, approved=True, client_id=1, reason=None)


async def test_yes_that_comes_with_the_interrupt_runs_nothing(tmp_path):
    async with open_stage(tmp_path, TWO_FILES) as stage, stage.play(approval="ask") as play:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(play.prompt, "go")
            await play.until(lambda events: "approval_required" in kinds(events))
            (name,) = play.present.approvals
            play.agent.interrupt()
            play.agent.approvals.resolve(name, approved=True, client_id=1, reason=None)
        assert play.workspace.files() == []
        assert play.of("turn_complete")[0]["stop_reason"] == "interrupted"
        check_conversation(play.conversation.messages)


async def test_turn_cancelled_at_any_step_leaves_no_question_open(tmp_path):
    async with open_stage(tmp_path, TWO_FILES) as stage:
        step, steps = 0, 1
        while steps >= step:  # fewer: it ran to its end
            step += 1
            async with stage.play(f"s{step}", approval="ask") as play, trio.open_nursery() as nursery:

                async def approve(play: Play = play) -> None:
                    while True:
                        await play.until(lambda _: bool(play.present.approvals))
                        (name,) = play.present.approvals
                        play.agent.approvals.resolve(name, approved=True, client_id=1, reason=None)

                nursery.start_soon(approve)
                steps = await steps_of(lambda play=play: play.prompt("go"), at=step)
                nursery.cancel_scope.cancel()
                asked = [data["tool_use_id"] for data in play.of("approval_required")]
                assert [data["tool_use_id"] for data in play.of("approval_resolved")] == asked
                approved = [data["decision"] for data in play.of("approval_resolved")].count("approve")
                assert len(play.of("files_changed")) <= approved
                assert play.present.pending() == {"approvals": [], "running_tools": []}
                check_conversation(play.conversation.messages)
        assert step > 10
