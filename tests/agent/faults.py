"""What can go wrong while a model answers, at each place of a reply: what becomes of the turn, and how long it took.

`python -m tests.agent.faults` prints the table of docs/testing.md.
"""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import trio

from tests.agent.stage import check_conversation, open_stage
from tests.support import kinds

SCRIPT = """
[pace]
chunk_characters = 4
[[turn]]
[[turn.step]]
text = "abcdefghijkl"
{first}
[[turn.step.tool]]
name = "edit"
input = {{ file_path = "log.txt", old_string = "end", new_string = "ran end" }}
[[turn.step]]
text = "after the tool"
{second}
"""
EVENT_DEADLINE = 0.4  # s: a model is silent sooner than in life
PLACES = {  # name -> step, position
    "first event": ("first", "after = 0"),
    "mid text": ("first", 'at = "text"'),
    "in a tool input": ("first", 'at = "tool"'),
    "before the last event": ("first", 'at = "stop"'),
    "after tools": ("second", "after = 0"),
}
# name -> the script's words, what the event says, whether it passes
STREAMS = {
    "end of the stream": ('kind = "cut"', "stream_cut"),
    "connection reset": ('kind = "reset"', "connection_error"),
    "error event": ('kind = "error"', "overloaded_error"),
    "malformed event": ('kind = "malformed"', "malformed_answer"),
    "silence": ('kind = "silence"', "silence"),
    "pings and nothing else": ('kind = "pings"', "silence"),
}
PASSING = {429: "rate_limit_error", 500: "api_error", 502: "api_error", 503: "api_error", 529: "overloaded_error"}
FINAL = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
}
RETRY_AFTER = 0.2  # s, asked for by 429


@dataclass(frozen=True)
class Case:
    """One fault at one place."""

    fault: str
    place: str
    words: str  # in the script
    reason: str
    final: bool = False


def _words(status: int) -> str:
    return f'kind = "status", status = {status}' + (f", retry_after = {RETRY_AFTER}" if status == 429 else "")


CASES = [
    *(Case(fault, place, words, reason) for fault, (words, reason) in STREAMS.items() for place in PLACES),
    *(
        Case(f"status {status}", place, _words(status), reason, final=status in FINAL)
        for status, reason in (PASSING | FINAL).items()
        for place in ("first event", "after tools")  # a refusal is in place of a reply
    ),
]


async def play(case: Case, folder: Path, times: int = 1) -> float:
    """Let it go wrong; the turn's seconds. It is whole as if nothing had been, or, where no try can help, ended at once."""
    step, position = PLACES[case.place]
    script = SCRIPT.format(
        **{"first": "", "second": "", step: f"fault = {{ {case.words}, {position}, times = {times} }}"}
    )
    settings = {"event_deadline": EVENT_DEADLINE, "model_retries": times, "retry_first": 0.05}
    async with open_stage(folder, script, **settings) as stage, stage.play() as play:
        play.workspace.write("log.txt", b"end")
        events = await play.prompt("go")
        retries = play.of("turn_retry")
        ran = not case.final or case.place == "after tools"
        assert play.text("log.txt") == ("ran end" if ran else "end"), "a tool has run twice, or not at all"
        assert kinds(events).count("claude_tool_use") == kinds(events).count("claude_tool_result") == int(ran)
        complete = events[-1]["data"]
        if case.final:
            assert retries == []
            assert (complete["stop_reason"], complete["is_error"]) == ("error", True)
            [error] = play.of("agent_error")
            assert (error["error_type"], error["retryable"]) == (case.reason, False)
        else:
            assert [(retry["attempt"], retry["reason"]) for retry in retries] == [
                (attempt, case.reason) for attempt in range(2, times + 2)
            ]
            assert complete["stop_reason"] == "end_turn"
            withdrawn = {block for retry in retries for block in retry["blocks"]}
            said = [data["text"] for data in play.of("claude_text") if data["block"] not in withdrawn]
            assert said == ["abcdefghijkl", "after the tool"]
            assert [block["type"] for message in play.conversation.messages for block in message["content"]] == [
                "text", "text", "tool_use", "tool_result", "text"
            ]  # fmt: skip
        check_conversation(play.conversation.messages)
        assert play.kept() == play.conversation.messages
        return float(complete["duration_ms"]) / 1000


async def table() -> None:
    """The table of docs/testing.md."""
    print(f"| fault | {' | '.join(PLACES)} | the turn |\n| --- |{' --- |' * (len(PLACES) + 1)}")
    for fault in dict.fromkeys(case.fault for case in CASES):
        cells = dict.fromkeys(PLACES, "")
        for case in (case for case in CASES if case.fault == fault):
            with tempfile.TemporaryDirectory() as folder, trio.fail_after(30):
                cells[case.place] = f"{await play(case, Path(folder)):.2f} s"
        end = f"ends with `{case.reason}`" if case.final else f"completes, `{case.reason}`"
        print(f"| {fault} | {' | '.join(cells.values())} | {end} |", flush=True)
    final = sum(case.final for case in CASES)
    print(
        f"\n{len(CASES)} turns: {len(CASES) - final} completed, {final} ended at once; in none a tool ran twice (`play` asserts it)."
    )


if __name__ == "__main__":
    from daemon import log

    log.configure("text", quiet="-v" not in sys.argv)
    trio.run(table)
