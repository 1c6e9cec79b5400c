"""The tools, as the model calls them."""

import dataclasses
import os
from functools import partial
from typing import Any

import pytest
import trio
from anthropic.lib.tools.agent_toolset import AgentToolContext, beta_agent_toolset_20260401

from daemon.agent import preview_errors
from daemon.agent.tools import NAMES, TRUNCATED, Result, Tools, definitions
from daemon.workspace.visits import PageError
from tests.workspace.box import open_box


@pytest.fixture
async def box(tmp_path):
    async with open_box(tmp_path, max_file=1000, max_tool_result=1000) as box:
        yield box


@pytest.fixture
def workspace(box):
    return box.workspace


@pytest.fixture
def tools(box):
    return Tools(box.workspace, box.sandbox, box.config)


def test_definitions_are_the_sdks_own():
    theirs = {tool.name: tool.to_dict() for tool in beta_agent_toolset_20260401(AgentToolContext(workdir="/"))}
    *sdks, own = definitions()
    assert [tool["name"] for tool in sdks] == list(NAMES) == [*theirs]
    assert own == preview_errors.DEFINITION
    for tool in sdks:
        assert set(tool) == {"name", "description", "input_schema"}
        assert tool["input_schema"] == theirs[tool["name"]]["input_schema"]
        assert tool["description"] == theirs[tool["name"]]["description"]


async def test_write_makes_folders_and_names_what_it_changed(tools, workspace):
    result = await tools.run("write", {"file_path": "/workspace/a/b.txt", "content": "ü"})
    assert result == Result("wrote 2 bytes to /workspace/a/b.txt", changed=("a/b.txt",))
    assert workspace.read("a/b.txt") == "ü".encode()


async def test_read_gives_the_text_as_it_is(tools, workspace):
    workspace.write("a.txt", b"one\r\ntwo\n\n")
    assert await tools.run("read", {"file_path": "a.txt"}) == Result("one\r\ntwo\n\n")
    workspace.write("empty", b"")
    assert await tools.run("read", {"file_path": "empty"}) == Result("")


@pytest.mark.parametrize(
    ("view_range", "text"),
    [
        ([1, 1], "1"), ([2, 3], "2\n3"), ([1, -1], "1\n2\n3"), ([3, -1], "3"), ([0, 2], "1\n2"), ([-5, 1], "1"),
        ([3, 99], "3"), ([4, 9], ""), ([3, 2], ""), ([1, 0], ""), ([1, -2], ""), (None, "1\n2\n3"),
    ],
)  # fmt: skip
async def test_view_range_picks_lines(tools, workspace, view_range, text):
    workspace.write("a.txt", b"1\n2\n3")
    assert await tools.run("read", {"file_path": "a.txt", "view_range": view_range}) == Result(text)


@pytest.mark.parametrize("size", [1000, 1001])
async def test_long_result_is_cut_with_a_mark(tools, workspace, size):
    workspace.write("a.txt", b"x" * 500)
    workspace.write("b.txt", b"y" * 1000)
    text = "x" * 500 + "\n" + "y" * (size - 501)
    workspace.max_file = 2000
    workspace.write("c.txt", text.encode())
    result = await tools.run("read", {"file_path": "c.txt"})
    assert result.text == text[:1000] + ("" if size == 1000 else TRUNCATED.format(size=1001))


async def test_edit_replaces_the_one_occurrence(tools, workspace):
    workspace.write("a.txt", b"one two")
    result = await tools.run("edit", {"file_path": "a.txt", "old_string": "two", "new_string": "2"})
    assert result == Result("edited a.txt (1 replacement(s))", changed=("a.txt",))
    assert workspace.read("a.txt") == b"one 2"


async def test_edit_of_several_occurrences_needs_to_be_asked_for(tools, workspace):
    workspace.write("a.txt", b"a b a")
    call = {"file_path": "a.txt", "old_string": "a", "new_string": "c"}
    for replace_all in (None, False):
        result = await tools.run("edit", {**call, "replace_all": replace_all})
        assert result.is_error
        assert "occurs 2 times" in result.text
        assert result.changed == ()
        assert workspace.read("a.txt") == b"a b a"
    assert not (await tools.run("edit", {**call, "replace_all": True})).is_error
    assert workspace.read("a.txt") == b"c b c"


async def test_edit_may_remove(tools, workspace):
    workspace.write("a.txt", b"one two")
    await tools.run("edit", {"file_path": "a.txt", "old_string": " two", "new_string": ""})
    assert workspace.read("a.txt") == b"one"


@pytest.mark.parametrize("old", ["", "three"])
async def test_edit_of_what_is_not_there_is_refused(tools, workspace, old):
    workspace.write("a.txt", b"one two")
    result = await tools.run("edit", {"file_path": "a.txt", "old_string": old, "new_string": "x"})
    assert (result.is_error, result.text) == (True, "edit: old_string does not occur in a.txt")


async def test_edit_that_would_grow_beyond_bounds_is_refused_before_it_is_made(tmp_path):
    async with open_box(tmp_path) as box:
        tools, workspace = Tools(box.workspace, box.sandbox, box.config), box.workspace
        workspace.write("a.txt", b"a" * 1_000_000)
        call = {"file_path": "a.txt", "old_string": "a", "new_string": "b" * 10_000_000, "replace_all": True}
        result = await tools.run("edit", call)  # 10 TB
        assert result.is_error
        assert "larger than" in result.text
        assert workspace.read("a.txt") == b"a" * 1_000_000


@pytest.mark.parametrize("name", ["read", "edit"])
async def test_binary_file_is_refused(tools, workspace, name):
    workspace.write("a.png", b"\x89PNG\xff")
    result = await tools.run(name, {"file_path": "a.png", "old_string": "P", "new_string": "Q"})
    assert (result.is_error, result.text) == (True, f"{name}: a.png: not UTF-8 text")


async def test_file_that_is_too_large_is_neither_written_nor_read(tools, workspace):
    result = await tools.run("write", {"file_path": "a", "content": "ü" * 501})
    assert result.is_error
    assert "larger than 1000 bytes" in result.text
    (workspace.root / "b").write_bytes(b"x" * 1001)
    result = await tools.run("read", {"file_path": "b"})
    assert result.is_error
    assert workspace.files() == ["b"]


async def test_bash_tells_output_exit_code_and_what_it_changed(tools, workspace):
    shown: list[str] = []
    workspace.write("old.txt", b"old")
    workspace.write("same.txt", b"same")
    command = "mkdir d; echo new > d/new.txt; rm old.txt; echo one; echo two >&2; exit_code() { return 3; }; exit_code"
    result = await tools.run("bash", {"command": command}, shown.append)
    assert result == Result("one\ntwo\n[exit code 3]", is_error=True, changed=("d/new.txt", "old.txt"))
    assert "".join(shown) == "one\ntwo\n"
    assert await tools.run("bash", {"command": "printf no-newline"}) == Result("no-newline")


async def test_bash_that_is_interrupted_tells_what_it_had_changed(tools, workspace):
    told = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(tools.run, "bash", {"command": "touch new; sleep 60"}, cut=told.append))
        while not workspace.has("new"):
            await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert told == [("new",)]


async def test_bash_out_of_time_is_ended_and_says_so(tools):
    result = await tools.run("bash", {"command": "printf begun; sleep 60", "timeout_ms": 300})
    assert (result.is_error, result.text) == (True, "begun\n[ended after 0.3 s]")
    assert (await tools.run("bash", {"command": "echo on"})).text == "on\n"


async def test_restart_gives_a_new_shell(tools):
    await tools.run("bash", {"command": "x=3; cd /tmp"})
    assert (await tools.run("bash", {"command": "echo $x $PWD"})).text == "3 /tmp\n"
    assert not (await tools.run("bash", {"restart": True})).is_error
    assert (await tools.run("bash", {"command": "echo $x $PWD"})).text == "/workspace\n"


async def test_glob_lists_the_newest_first(tools, workspace):
    for name in ("a.txt", "b/c.txt", "b/d.md"):
        workspace.write(name, b"")
    os.utime(workspace.root / "b/c.txt", ns=(1, 1))
    assert (await tools.run("glob", {"pattern": "**/*.txt"})).text == "a.txt\nb/c.txt"
    assert (await tools.run("glob", {"pattern": "*.{md,txt}", "path": "/workspace/b"})).text == "b/d.md\nb/c.txt"
    assert (await tools.run("glob", {"pattern": "*.py"})).text == "no matches"


async def test_grep_gives_places_and_lines(tools, workspace):
    workspace.write("a.txt", b"one\ntwo 22\n")
    workspace.write("b/c.txt", b"three 33\n")
    workspace.write("b/binary", b"33\0")
    assert (await tools.run("grep", {"pattern": r"\d{2}$", "path": "b"})).text == "b/c.txt:1:three 33"
    found = await tools.run("grep", {"pattern": r"\d{2}$"})
    assert sorted(found.text.split("\n")) == ["a.txt:2:two 22", "b/c.txt:1:three 33"]
    assert await tools.run("grep", {"pattern": "four"}) == Result("no matches")
    assert await tools.run("grep", {"pattern": "'; touch hacked; '"}) == Result("no matches")
    assert not workspace.has("hacked")


async def test_hostile_pattern_is_ended(box, workspace):
    tools = Tools(workspace, box.sandbox, dataclasses.replace(box.config, search_deadline=0.5))
    workspace.write("a.txt", b"a" * 900 + b"!")
    started = trio.current_time()
    result = await tools.run("grep", {"pattern": r"^((a|b|ab)*)*\1$"})
    assert result.is_error or result.text == "no matches"
    assert trio.current_time() - started < 3


async def test_search_without_a_sandbox_finds_plain_text_alone(tools, workspace, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    workspace.write("a.txt", b"one\ntwo\n")
    assert (await tools.run("grep", {"pattern": "two"})).text == "a.txt:2:two"
    assert (
        await tools.run("grep", {"pattern": "t.o"})
    ).text == "grep: without a sandbox only plain text can be looked for"


async def test_full_workspace_takes_no_more_files(tmp_path):
    async with open_box(tmp_path, workspace_limit=1 << 20) as box:
        tools = Tools(box.workspace, box.sandbox, box.config)
        box.workspace.write("big", os.urandom(900_000))
        assert not (await tools.run("write", {"file_path": "a", "content": "a" * 50_000})).is_error
        result = await tools.run("write", {"file_path": "b", "content": "b" * 200_000})
        assert result.is_error
        assert result.text == "write: the workspace holds more than its 1 MB: delete something first"
        result = await tools.run(
            "edit", {"file_path": "a", "old_string": "a", "new_string": "bbbb", "replace_all": True}
        )
        assert result.is_error
        assert box.workspace.read("a") == b"a" * 50_000


BAD: list[tuple[str, Any, str]] = [
    ("fly", {}, "there is no tool 'fly'"),
    ("bash", {}, "command is required"),
    ("bash", {"command": "echo \0"}, "without a NUL"),
    ("bash", {"command": "echo \ud800"}, "half of a surrogate pair"),
    ("bash", {"command": "echo (", "timeout_ms": -1}, "syntax error"),
    ("bash", {"command": "touch x", "timeout_ms": "1"}, "Expected `int | null`"),
    ("glob", {"pattern": "../*"}, "beneath the workspace"),
    ("glob", {"pattern": "/etc/*"}, "beneath the workspace"),
    ("glob", {"pattern": "{a,b}" * 9}, "too many choices"),
    ("glob", {"pattern": "*", "path": "../x"}, "outside the workspace"),
    ("grep", {"pattern": "x", "path": "/etc"}, "outside the workspace"),
    ("grep", {"pattern": "("}, "missing"),
    ("grep", {"pattern": "x", "path": "absent"}, "No such file"),
    ("grep", {"pattern": "x" * 1001}, "too long"),
    ("read", {}, "missing required field `file_path`"),
    ("read", [], "Expected `object`, got `array`"),
    ("read", None, "Expected `object`, got `null`"),
    ("read", {"file_path": 3}, "Expected `str`, got `int`"),
    ("read", {"file_path": "absent"}, "No such file"),
    ("read", {"file_path": ""}, "not a file name"),
    ("read", {"file_path": "../x"}, "outside the workspace"),
    ("read", {"file_path": "/etc/passwd"}, "outside the workspace"),
    ("read", {"file_path": "folder"}, "not a regular file"),
    ("read", {"file_path": "text", "view_range": [1]}, "view_range is"),
    ("read", {"file_path": "text", "view_range": []}, "view_range is"),
    ("read", {"file_path": "text", "view_range": "1-2"}, "Expected `array | null`"),
    ("read", {"file_path": "text", "view_range": [1.5, 2]}, "Expected `int`, got `float`"),
    ("write", {"file_path": "a"}, "missing required field `content`"),
    ("write", {"file_path": "folder", "content": ""}, "is a folder"),
    ("write", {"file_path": "text/a", "content": ""}, "Not a directory"),
    ("write", {"file_path": "a", "content": "\ud800"}, "half of a surrogate pair"),
    ("write", {"file_path": "\ud800", "content": ""}, "not a file name"),
    ("edit", {"file_path": "text", "old_string": "x"}, "missing required field `new_string`"),
    ("edit", {"file_path": "text", "old_string": "text", "new_string": "\udfff"}, "half of a surrogate pair"),
]


@pytest.mark.parametrize(("name", "arguments", "complaint"), BAD)
async def test_bad_call_is_answered_and_changes_nothing(tools, workspace, name, arguments, complaint):
    (workspace.root / "folder").mkdir()
    workspace.write("text", b"text")
    result = await tools.run(name, arguments)
    assert result.is_error
    assert complaint in result.text
    assert result.changed == ()
    assert workspace.files() == ["text"]
    assert workspace.read("text") == b"text"


async def test_extra_arguments_are_ignored(tools, workspace):
    workspace.write("a", b"text")
    assert await tools.run("read", {"file_path": "a", "why": "curious"}) == Result("text")


async def test_errors_of_the_preview_are_a_tool_of_ours(tools, workspace):
    workspace.visits.note(PageError("/", "oops"))
    for arguments in ({}, {"anything": 1}):
        result = await tools.run("preview_errors", arguments)
        assert (result.text.splitlines()[-1], result.is_error, result.changed) == ("- /: oops", False, ())
