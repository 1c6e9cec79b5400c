"""Turns: the agent on the real SDK, over HTTP, against the scripted model."""

import threading
from typing import Any

import msgspec
import pytest
import trio

from daemon.agent.calling import INTERRUPTED
from daemon.agent.turns import CUT
from daemon.agent.unfinished import UNKNOWN
from daemon.journal import frames
from daemon.sessions.record import Usage
from daemon.workspace import beneath
from tests.agent.stage import PREVIEW, Play, check_conversation, open_stage
from tests.support import descriptors, kinds, steps_of

# Where a stream breaks, the SDK drops its generators before they have ended, of which Trio warns.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator '(anthropic|httpx2|httpcore2):ResourceWarning")

BUILD = """
[[turn]]
pattern = "build"
[[turn.step]]
thinking = "A page, I think."
text = "I write two files."
[[turn.step.tool]]
name = "write"
input = { file_path = "index.html", content = "<title>One</title><h1 id=top>Up</h1>" }
[[turn.step.tool]]
name = "write"
input = { file_path = "a.css", content = "a {}" }
[[turn.step]]
text = "Now a correction."
[[turn.step.tool]]
name = "edit"
input = { file_path = "index.html", old_string = "Up", new_string = "Top" }
[[turn.step.tool]]
name = "read"
input = { file_path = "index.html" }
[[turn.step]]
text = "Done."

[[turn]]
pattern = "small"
[[turn.step]]
text = "One file."
[[turn.step.tool]]
name = "write"
input = { file_path = "index.html", content = "<title>One</title>" }
[[turn.step]]
text = "Done."

[[turn]]
pattern = "cut short"
[[turn.step]]
text = "This ran"
stop_reason = "max_tokens"

[[turn]]
pattern = "no such"
[[turn.step]]
[[turn.step.tool]]
name = "fly"
[[turn.step]]
text = "I cannot fly."

[[turn]]
[[turn.step]]
text = "Only words, {{prompt}}."
"""


def without_ids(events: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Kinds and data; a tool call's id becomes its place, a duration must be a number of milliseconds."""
    calls: list[str] = []
    found = []
    for event in events:
        data = dict(event["data"])
        if "tool_use_id" in data:
            if data["tool_use_id"] not in calls:
                calls.append(data["tool_use_id"])
            data["tool_use_id"] = calls.index(data["tool_use_id"])
        if "duration_ms" in data:
            duration = data.pop("duration_ms")
            assert isinstance(duration, int)
            assert 0 <= duration < 10_000
        found.append((event["event"], data))
    return found


def tokens(text: str) -> int:
    return -(-len(text) // 4)


async def test_turn_journals_its_events_in_order_and_shape(tmp_path):
    async with open_stage(tmp_path, BUILD) as stage, stage.play() as play:
        events = await play.prompt("build it")
        page = "<title>One</title><h1 id=top>Up</h1>"
        sections = [{"id": "top", "title": "Top"}]
        expected = [
            ("turn_start", {"turn": 1, "prompt": "build it", "message_id": "m1"}),
            ("claude_thinking", {"turn": 1, "block": 0, "thinking": "A page, I think."}),
            ("claude_text", {"turn": 1, "block": 1, "text": "I write two files."}),
            ("claude_tool_use", tool(0, "write", file_path="index.html", content=page)),
            ("claude_tool_result", result(0, "wrote 36 bytes to index.html")),
            ("files_changed", {"paths": ["index.html"]}),
            ("preview_ready", {"preview_url": f"{PREVIEW}/"}),
            ("claude_tool_use", tool(1, "write", file_path="a.css", content="a {}")),
            ("claude_tool_result", result(1, "wrote 4 bytes to a.css")),
            ("files_changed", {"paths": ["a.css"]}),
            ("claude_text", {"turn": 1, "block": 2, "text": "Now a correction."}),
            ("claude_tool_use", tool(2, "edit", file_path="index.html", old_string="Up", new_string="Top")),
            ("claude_tool_result", result(2, "edited index.html (1 replacement(s))")),
            ("files_changed", {"paths": ["index.html"]}),
            ("claude_tool_use", tool(3, "read", file_path="index.html")),
            ("claude_tool_result", result(3, page.replace("Up", "Top"))),
            ("claude_text", {"turn": 1, "block": 3, "text": "Done."}),
            (
                "pages_discovered",
                {
                    "pages": [
                        {"path": "index.html", "title": "One", "url": f"{PREVIEW}/index.html", "sections": sections}
                    ],
                    "total_pages": 1,
                },
            ),
            (
                "turn_complete",
                {"turn": 1, "stop_reason": "end_turn", "is_error": False, "usage": msgspec.to_builtins(play.usage)},
            ),
        ]
        assert without_ids(events) == expected
        check_conversation(play.conversation.messages)


def tool(number: int, name: str, **arguments: Any) -> dict[str, Any]:
    return {"turn": 1, "tool_use_id": number, "tool": name, "input": arguments}


def result(number: int, text: str) -> dict[str, Any]:
    return {"turn": 1, "tool_use_id": number, "result": text, "is_error": False}


async def test_usage_is_the_sum_of_what_each_request_cost(tmp_path):
    async with open_stage(tmp_path, BUILD) as stage, stage.play() as play:
        await play.prompt("build it")
        messages = play.conversation.messages
        asked = [messages[:end] for end in (1, 3, 5)]
        said = ["A page, I think.", "I write two files.", "Now a correction.", "Done."]
        said += [msgspec.json.encode(call["input"]).decode() for call in play.of("claude_tool_use")]
        assert play.usage == Usage(
            input_tokens=sum(tokens(msgspec.json.encode(request).decode()) for request in asked),
            output_tokens=sum(tokens(text) for text in said),
        )
        first = msgspec.convert(play.of("turn_complete")[0]["usage"], Usage)
        await play.prompt("more")
        second = msgspec.convert(play.of("turn_complete")[1]["usage"], Usage)
        first.add(second)
        assert play.usage == first


async def test_deltas_say_exactly_what_is_journaled_after_them(tmp_path):
    async with open_stage(tmp_path, BUILD) as stage, stage.play() as play:
        await play.prompt("build it")
        heard: dict[int, str] = {}
        for event in play.shown():
            data = event["data"]
            if event["event"] in {"claude_text_delta", "claude_thinking_delta"}:
                assert data["position"] == len(heard.get(data["block"], ""))
                heard[data["block"]] = heard.get(data["block"], "") + data["text"]
            elif event["event"] in {"claude_text", "claude_thinking"}:
                assert heard[data["block"]] == data.get("text", data.get("thinking"))
        assert set(heard) == {0, 1, 2, 3}


async def test_preview_is_ready_once_and_pages_follow_each_change(tmp_path):
    async with open_stage(tmp_path, BUILD) as stage, stage.play() as play:
        await play.prompt("build it")
        again = await play.prompt("build it again")
        assert "preview_ready" not in kinds(again)
        assert kinds(again).count("pages_discovered") == 1
        words = await play.prompt("talk")
        assert kinds(words) == ["turn_start", "claude_text", "turn_complete"]


async def test_stop_reason_is_the_models_own(tmp_path):
    async with open_stage(tmp_path, BUILD) as stage, stage.play() as play:
        events = await play.prompt("cut short")
        assert events[-1]["data"]["stop_reason"] == "max_tokens"
        assert events[-1]["data"]["is_error"] is False


CUT_CALL = """
[[turn]]
[[turn.step]]
cut_tool = true
stop_reason = "max_tokens"
[[turn.step.tool]]
name = "write"
input = { file_path = "a.txt", content = "whole" }
[[turn.step.tool]]
name = "write"
input = { file_path = "b.txt", content = "cut" }
"""


async def test_call_that_ran_out_of_tokens_is_not_run_and_the_model_goes_on(tmp_path):
    async with open_stage(tmp_path, CUT_CALL + '[[turn.step]]\ntext = "In steps."') as stage, stage.play() as play:
        events = await play.prompt("go")
        assert play.workspace.files() == ["a.txt"]
        assert kinds(events).count("claude_tool_use") == kinds(events).count("claude_tool_result") == 1
        answers = play.conversation.messages[2]["content"]
        assert [(block["is_error"], block["content"] == CUT) for block in answers] == [(False, False), (True, True)]
        assert events[-1]["data"]["stop_reason"] == "end_turn"
        check_conversation(play.conversation.messages)


async def test_model_that_runs_out_of_tokens_in_every_call_is_not_asked_for_ever(tmp_path):
    script = CUT_CALL + CUT_CALL.replace("[[turn]]\n", "") * 4
    async with open_stage(tmp_path, script, max_cut_replies=2) as stage, stage.play() as play:
        events = await play.prompt("go")
        assert kinds(events).count("claude_tool_use") == 3
        assert (events[-1]["data"]["stop_reason"], events[-1]["data"]["is_error"]) == ("max_tokens", False)
        check_conversation(play.conversation.messages)


async def test_paused_turn_goes_on_by_itself(tmp_path):
    script = '[[turn]]\n[[turn.step]]\ntext = "One."\nstop_reason = "pause_turn"\n[[turn.step]]\ntext = "Two."'
    async with open_stage(tmp_path, script) as stage, stage.play() as play:
        events = await play.prompt("go")
        assert [data["text"] for data in play.of("claude_text")] == ["One.", "Two."]
        assert events[-1]["data"]["stop_reason"] == "end_turn"
        assert [message["role"] for message in play.conversation.messages] == ["user", "assistant", "assistant"]


async def test_refused_turn_ends_visibly_and_runs_and_repeats_nothing_of_it(tmp_path):
    script = """
        [[turn]]
        pattern = "bad"
        [[turn.step]]
        text = "Well, I could"
        stop_reason = "refusal"
        [[turn.step.tool]]
        name = "write"
        input = { file_path = "a.txt", content = "x" }
        [[turn]]
        [[turn.step]]
        text = "Fine."
    """
    async with open_stage(tmp_path, script) as stage, stage.play() as play:
        events = await play.prompt("bad")
        assert kinds(events) == ["turn_start", "claude_text", "turn_complete"]
        assert (events[-1]["data"]["stop_reason"], events[-1]["data"]["is_error"]) == ("refusal", False)
        assert play.workspace.files() == []
        assert [message["role"] for message in play.conversation.messages] == ["user"]
        events = await play.prompt("good")
        assert events[-1]["data"]["stop_reason"] == "end_turn"
        check_conversation(play.conversation.messages)


async def test_full_context_window_ends_the_turn_and_is_said(tmp_path):
    script = '[[turn]]\n[[turn.step]]\ntext = "So"\nstop_reason = "model_context_window_exceeded"'
    async with open_stage(tmp_path, script) as stage, stage.play() as play:
        events = await play.prompt("go")
        assert events[-1]["data"]["stop_reason"] == "model_context_window_exceeded"


async def test_all_four_counts_of_tokens_are_summed(tmp_path):
    steps = "".join(
        f"[[turn.step]]\n{what}\nusage = {{ input_tokens = 3, output_tokens = 4, cache_read_input_tokens = {read}, "
        f"cache_creation_input_tokens = {made} }}\n{tool}"
        for what, read, made, tool in (
            ("", 100, 10, '[[turn.step.tool]]\nname = "write"\ninput = { file_path = "a", content = "b" }\n'),
            ('text = "Done."', 200, 20, ""),
        )
    )
    async with open_stage(tmp_path, "[[turn]]\n" + steps) as stage, stage.play(token_budget=1000) as play:
        events = await play.prompt("go")
        counts = {
            "input_tokens": 6, "output_tokens": 8, "cache_read_input_tokens": 300, "cache_creation_input_tokens": 30
        }  # fmt: skip
        assert events[-1]["data"]["usage"] == counts
        assert msgspec.to_builtins(play.usage) == counts
        assert play.usage.counted == 44


async def test_failing_tool_is_told_to_the_model_and_the_turn_goes_on(tmp_path):
    async with open_stage(tmp_path, BUILD) as stage, stage.play() as play:
        events = await play.prompt("no such tool")
        assert kinds(events) == [
            "turn_start", "claude_tool_use", "claude_tool_result", "claude_text", "turn_complete"
        ]  # fmt: skip
        assert events[2]["data"]["is_error"] is True
        assert play.conversation.messages[2]["content"][0]["is_error"] is True
        assert events[-1]["data"]["stop_reason"] == "end_turn"


async def test_conversation_is_kept_when_the_session_is_opened_again(tmp_path):
    async with open_stage(tmp_path, BUILD) as stage:
        async with stage.play() as play:
            await play.prompt("build it")
            said = play.conversation.messages
        async with stage.play() as play:
            assert play.conversation.messages == said


async def test_calls_that_a_crash_left_open_are_answered_before_the_next_turn(tmp_path):
    async with open_stage(tmp_path, BUILD) as stage:
        call = {"type": "tool_use", "id": "toolu_1", "name": "write", "input": {}}
        stage.store.add_message("abc", 0, {"role": "user", "content": [{"type": "text", "text": "build"}]})
        stage.store.add_message("abc", 1, {"role": "assistant", "content": [call]})
        async with stage.play() as play:
            await play.prompt("go on")
            answers = play.conversation.messages[2]["content"]
            assert [(block["tool_use_id"], block["content"]) for block in answers] == [("toolu_1", UNKNOWN)]
            check_conversation(play.conversation.messages)


async def test_turn_that_never_ends_is_ended_by_its_bound(tmp_path):
    async with open_stage(tmp_path, BUILD, max_rounds=2) as stage, stage.play() as play:
        events = await play.prompt("build it")
        assert kinds(events)[-2:] == ["agent_error", "turn_complete"]
        assert events[-2]["data"]["error_type"] == "max_rounds"
        check_conversation(play.conversation.messages)


# --- faults

FAULTY = """
[pace]
chunk_characters = 4
[[turn]]
pattern = "^go"
[[turn.step]]
text = "abcdefghijkl"
{first}
[[turn.step.tool]]
name = "edit"
input = {{ file_path = "log.txt", old_string = "end", new_string = "ran end" }}
[[turn.step]]
text = "after the tool"
{second}
[[turn]]
[[turn.step]]
text = "Fine."
[[turn.step.tool]]
name = "edit"
input = {{ file_path = "log.txt", old_string = "end", new_string = "next end" }}
[[turn.step]]
text = "Done."
"""
# Events: 0 message_start, 1 block start, 2-4 text deltas, 5 block stop, 6 tool start, 7-… its input.
_INPUT = '{"file_path":"log.txt","old_string":"end","new_string":"ran end"}'
PLACES = {
    "first event": ("first", 0),
    "mid text": ("first", 3),
    "tool input": ("first", 9),
    "whole tool call": ("first", 8 + tokens(_INPUT)),  # the delta's size is the token's: four characters
    "after tools": ("second", 0),
}
STATUSES = {
    429: ("rate_limit_error", True),
    500: ("api_error", True),
    529: ("overloaded_error", True),
    401: ("authentication_error", False),
    400: ("invalid_request_error", False),
}
BROKEN = {
    "cut": "stream_cut",
    "reset": "connection_error",
    "error": "overloaded_error",
    "malformed": "malformed_answer",
    "silence": "silence",
}


def faulty(place: str, fault: str) -> str:
    step, after = PLACES[place]
    faults = {"first": "", "second": "", step: f"fault = {{ {fault}, after = {after} }}"}
    return FAULTY.format(**faults)


async def fail_and_go_on(play: Play, place: str, error_type: str, retryable: bool) -> None:
    """The turn fails as the contract says, nothing is run twice, and the next prompt works."""
    play.workspace.write("log.txt", b"end")
    events = await play.prompt("go")
    assert kinds(events)[-2:] == ["agent_error", "turn_complete"]
    assert kinds(events).count("agent_error") == 1
    error, complete = events[-2]["data"], events[-1]["data"]
    assert (error["error_type"], error["retryable"]) == (error_type, retryable)
    assert error["error"]
    assert (complete["stop_reason"], complete["is_error"]) == ("error", True)
    ran = place == "after tools"
    assert play.text("log.txt") == ("ran end" if ran else "end")
    assert kinds(events).count("claude_tool_use") == kinds(events).count("claude_tool_result") == int(ran)
    said = [data["text"] for data in play.of("claude_text")]
    assert said == {"first event": [], "mid text": ["abcd"]}.get(place, ["abcdefghijkl"])
    check_conversation(play.conversation.messages)
    assert ran == any(block["type"] == "tool_use" for block in blocks(play))
    again = await play.prompt("and now")
    assert again[-1]["data"]["stop_reason"] == "end_turn"
    assert play.text("log.txt") == ("ran next end" if ran else "next end")
    check_conversation(play.conversation.messages)
    assert play.kept() == play.conversation.messages


@pytest.mark.parametrize("status", STATUSES)
async def test_refused_request_fails_the_turn_and_not_the_session(tmp_path, status):
    for place in ("first event", "after tools"):
        script = faulty(place, f'kind = "status", status = {status}')
        async with open_stage(tmp_path, script) as stage, stage.play(place) as play:
            await fail_and_go_on(play, place, *STATUSES[status])
            assert play.of("agent_error")[0]["error"].startswith(f"{status}: ")


@pytest.mark.parametrize("kind", BROKEN)
async def test_broken_stream_fails_the_turn_and_not_the_session(tmp_path, kind):
    deadline = 0.7 if kind == "silence" else 20.0

    async def fail(place: str) -> None:
        folder = tmp_path / place
        folder.mkdir()
        script = faulty(place, f'kind = "{kind}"')
        async with open_stage(folder, script, event_deadline=deadline) as stage, stage.play(place) as play:
            await fail_and_go_on(play, place, BROKEN[kind], retryable=True)

    async with trio.open_nursery() as nursery:
        for place in PLACES:
            nursery.start_soon(fail, place)


def blocks(play: Play) -> list[dict[str, Any]]:
    return [block for message in play.conversation.messages for block in message["content"]]


async def test_stream_longer_than_the_deadline_of_an_event_is_no_silence(tmp_path):
    script = SLOW.format(first_delta_ms=0, speed=60)  # a delta each 33 ms, for a second
    async with open_stage(tmp_path, script, script_pace=1.0, event_deadline=0.7) as stage, stage.play() as play:
        events = await play.prompt("go")
        assert events[-1]["data"]["duration_ms"] > 700
        assert events[-1]["data"]["stop_reason"] == "end_turn"


async def test_partial_text_of_a_failed_turn_is_said_to_the_model(tmp_path):
    script = faulty("mid text", 'kind = "cut"')
    async with open_stage(tmp_path, script) as stage, stage.play() as play:
        await play.prompt("go")
        assert play.conversation.messages[-1] == {"role": "assistant", "content": [{"type": "text", "text": "abcd"}]}


# --- interrupts

SLOW = """
[pace]
first_delta_ms = {first_delta_ms}
characters_per_second = {speed}
chunk_characters = 2
[[turn]]
pattern = "^go"
[[turn.step]]
text = "one two three four five six seven eight nine ten eleven twelve"
[[turn]]
[[turn.step]]
text = "ok"
"""


async def interrupt_and_complete(play: Play, prompt: str, ready: Any) -> list[dict[str, Any]]:
    """Interrupt a turn once it is ready; it is complete within a second."""
    async with trio.open_nursery() as nursery:

        async def interrupt() -> None:
            await ready()
            play.agent.interrupt()
            nursery.cancel_scope.deadline = trio.current_time() + 1

        nursery.start_soon(interrupt)
        events = await play.prompt(prompt)
        nursery.cancel_scope.deadline = float("inf")
    assert not nursery.cancel_scope.cancelled_caught
    assert events[-1]["event"] == "turn_complete"
    assert (events[-1]["data"]["stop_reason"], events[-1]["data"]["is_error"]) == ("interrupted", False)
    assert "agent_error" not in kinds(events)
    check_conversation(play.conversation.messages)
    return events


@pytest.mark.parametrize("window", [0.0, 0.3])
async def test_interrupt_while_streaming_keeps_what_was_shown(tmp_path, window):
    script = SLOW.format(first_delta_ms=0, speed=100)
    async with open_stage(tmp_path, script, script_pace=1.0, delta_window=window) as stage, stage.play() as play:

        async def some_text() -> None:
            await play.until(lambda events: kinds(events).count("claude_text_delta") >= 2)

        events = await interrupt_and_complete(play, "go", some_text)
        assert kinds(events) == ["turn_start", "claude_text", "turn_complete"]
        text = events[1]["data"]["text"]
        heard = "".join(data["text"] for data in play.of("claude_text_delta"))
        assert text == heard
        assert "one two three".startswith(text[:13])
        assert len(text) < 62
        assert play.conversation.messages[1]["content"] == [{"type": "text", "text": text}]
        assert play.present.block is None


async def test_interrupt_before_the_first_event_leaves_only_the_prompt(tmp_path):
    script = SLOW.format(first_delta_ms=60_000, speed=600)
    async with open_stage(tmp_path, script, script_pace=1.0) as stage, stage.play() as play:
        events = await interrupt_and_complete(play, "go", lambda: trio.testing.wait_all_tasks_blocked(0.1))
        assert kinds(events) == ["turn_start", "turn_complete"]
        assert [message["role"] for message in play.conversation.messages] == ["user"]


class SlowDoor:
    """A door to the workspace that stays shut, as a disk that does not answer, until it is let go."""

    def __init__(self) -> None:
        self.knocked, self.left, self.go_on = trio.Event(), trio.Event(), threading.Event()

    def open_beneath(self, root: int, path: str, flags: int, mode: int) -> int:
        if self.go_on.is_set():
            return beneath.open_beneath(root, path, flags, mode)
        trio.from_thread.run_sync(self.knocked.set)
        assert self.go_on.wait(10)
        trio.from_thread.run_sync(self.left.set)
        return beneath.open_beneath(root, path, flags, mode)


async def test_interrupt_while_a_tool_runs_does_not_wait_for_a_slow_disk(tmp_path):
    door = SlowDoor()

    async def tool_runs() -> None:
        await door.knocked.wait()
        assert [call["tool"] for call in play.present.running_tools.values()] == ["write"]

    async with open_stage(tmp_path, BUILD) as stage, stage.play(open_beneath=door.open_beneath) as play:
        events = await interrupt_and_complete(play, "build it", tool_runs)
        assert kinds(events) == [
            "turn_start", "claude_thinking", "claude_text", "claude_tool_use", "claude_tool_result", "turn_complete"
        ]  # fmt: skip
        assert (events[4]["data"]["result"], events[4]["data"]["is_error"]) == (INTERRUPTED, True)
        assert play.present.running_tools == {}
        answers = play.conversation.messages[-1]["content"]
        assert [(block["is_error"], block["content"]) for block in answers] == [(True, INTERRUPTED)] * 2
        async with trio.open_nursery() as nursery:
            nursery.start_soon(play.prompt, "small")
            await play.until(lambda events: kinds(events).count("claude_tool_use") == 2)
            await trio.testing.wait_all_tasks_blocked(0.1)
            assert kinds(play.journaled())[-1] == "claude_tool_use"  # the next call waits for the one that is held up
            door.go_on.set()
            await door.left.wait()
        assert play.text("index.html") == "<title>One</title>"
        assert play.workspace.files() == ["index.html"]


async def test_workspace_that_is_closed_upon_a_slow_disk_is_given_back_by_the_disk(tmp_path):
    door = SlowDoor()
    async with open_stage(tmp_path, BUILD) as stage:
        async with stage.play(open_beneath=door.open_beneath) as play:
            await interrupt_and_complete(play, "build it", door.knocked.wait)
            folder = str(play.workspace.root)
        assert folder in {target for _, target in descriptors()}
        door.go_on.set()
        await door.left.wait()
        while folder in {target for _, target in descriptors()}:
            await trio.sleep(0.001)  # the thread has no more to say
        assert not list((tmp_path / "abc" / "workspace").iterdir())


async def test_interrupted_command_keeps_what_it_had_printed_for_clients_and_the_model(tmp_path):
    command = '[[turn.step.tool]]\nname = "bash"\ninput = {command = "echo be; sleep 0.05; echo fore; sleep 60"}'
    async with open_stage(tmp_path, f"[[turn]]\n[[turn.step]]\n{command}") as stage, stage.play() as play:

        async def printed() -> None:
            await play.until(lambda _: "fore" in "".join(piece["text"] for piece in play.of("tool_output")))
            late.extend(msgspec.json.decode(frames.payload_of(frame)) for frame in play.journal.late_frames())

        late: list[dict[str, Any]] = []
        events = await interrupt_and_complete(play, "go", printed)
        result = events[-2]["data"]["result"]
        assert result == f"be\nfore\n{INTERRUPTED}"
        name = play.of("claude_tool_use")[0]["tool_use_id"]
        told = {"tool_use_id": name, "position": 0, "text": "be\nfore\n"}  # in pieces to who was there
        assert [(event["event"], event["data"]) for event in late] == [("tool_output", told)]
        assert play.journal.late_frames() == []
        assert [block["content"] for block in play.conversation.messages[-1]["content"]] == [result]
        check_conversation(play.conversation.messages)


async def test_prompt_after_an_interrupt_works(tmp_path):
    script = SLOW.format(first_delta_ms=0, speed=100)
    async with open_stage(tmp_path, script, script_pace=1.0) as stage, stage.play() as play:

        async def some_text() -> None:
            await play.until(lambda events: "claude_text_delta" in kinds(events))

        await interrupt_and_complete(play, "go", some_text)
        events = await play.prompt("hello")
        assert events[1]["data"]["text"] == "ok"
        check_conversation(play.conversation.messages)


async def test_interrupt_between_turns_does_nothing(tmp_path):
    async with open_stage(tmp_path, BUILD) as stage, stage.play() as play:
        await play.prompt("hello")
        play.agent.interrupt()
        events = await play.prompt("hello")
        assert events[-1]["data"]["stop_reason"] == "end_turn"


async def test_turn_cancelled_at_any_step_is_complete_and_can_be_followed(tmp_path):
    async with open_stage(tmp_path, BUILD) as stage:
        step, steps = 0, 1
        while steps >= step:  # fewer: it ran to its end
            step += 1
            async with stage.play(f"s{step}") as play:
                steps = await steps_of(lambda play=play: play.prompt("small"), at=step)
                events = play.journaled()
                if events:  # cancelled at its first step, it has not begun
                    assert kinds(events)[0] == "turn_start"
                    assert kinds(events)[-1] == "turn_complete"
                    assert kinds(events).count("turn_complete") == 1
                uses, results = play.of("claude_tool_use"), play.of("claude_tool_result")
                assert [use["tool_use_id"] for use in uses] == [result["tool_use_id"] for result in results]
                finished = [result["tool_use_id"] for result in results if not result["is_error"]]
                changed = [use["input"]["file_path"] for use in uses if use["tool_use_id"] in finished]
                assert [path for data in play.of("files_changed") for path in data["paths"]] == changed
                check_conversation(play.conversation.messages)
                assert play.kept() == play.conversation.messages
                assert play.present.block is None
                assert play.present.running_tools == {}
                for data in play.of("claude_text"):
                    deltas = [delta for delta in play.of("claude_text_delta") if delta["block"] == data["block"]]
                    assert "".join(delta["text"] for delta in deltas) == data["text"]
                await play.prompt("talk")
                assert play.journaled()[-1]["data"]["stop_reason"] == "end_turn"
                check_conversation(play.conversation.messages)
        assert step > 20


# --- the token budget


async def test_budget_ends_the_turn_before_the_next_request(tmp_path):
    async with open_stage(tmp_path, BUILD) as stage, stage.play(token_budget=10) as play:
        events = await play.prompt("build it")
        used = play.usage.input_tokens + play.usage.output_tokens
        assert used >= 10
        assert kinds(events)[-4:] == ["files_changed", "budget_reached", "pages_discovered", "turn_complete"]
        assert play.of("budget_reached") == [{"kind": "tokens", "limit": 10, "used": used}]
        assert (events[-1]["data"]["stop_reason"], events[-1]["data"]["is_error"]) == ("budget", False)
        assert play.workspace.files() == ["a.css", "index.html"]  # the first reply's calls were still carried out
        check_conversation(play.conversation.messages)


async def test_budget_that_is_spent_refuses_the_next_prompt_until_it_is_raised(tmp_path):
    async with open_stage(tmp_path, BUILD) as stage, stage.play(token_budget=10) as play:
        await play.prompt("build it")
        spent = play.usage.output_tokens
        events = await play.prompt("hello")
        assert kinds(events) == ["turn_start", "budget_reached", "turn_complete"]
        assert play.usage.output_tokens == spent
        play.settings.token_budget = 100_000
        events = await play.prompt("hello again")
        assert kinds(events) == ["turn_start", "claude_text", "turn_complete"]
        check_conversation(play.conversation.messages)


@pytest.mark.parametrize(("budget", "stop_reason"), [(100, "budget"), (101, "end_turn")])
async def test_budget_counts_what_earlier_turns_used(tmp_path, budget, stop_reason):
    earlier = Usage(input_tokens=60, output_tokens=40, cache_read_input_tokens=1000)
    async with open_stage(tmp_path, BUILD) as stage, stage.play(token_budget=budget, usage=earlier) as play:
        events = await play.prompt("hello")
        assert events[-1]["data"]["stop_reason"] == stop_reason


async def test_usage_of_an_interrupted_turn_counts(tmp_path):
    script = SLOW.format(first_delta_ms=0, speed=100)
    async with open_stage(tmp_path, script, script_pace=1.0) as stage, stage.play() as play:

        async def some_text() -> None:
            await play.until(lambda events: "claude_text_delta" in kinds(events))

        events = await interrupt_and_complete(play, "go", some_text)
        assert play.usage.input_tokens > 0
        assert events[-1]["data"]["usage"] == msgspec.to_builtins(play.usage)
