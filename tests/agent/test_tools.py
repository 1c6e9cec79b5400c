"""The file tools, as the model calls them."""

from typing import Any

import pytest
from anthropic.lib.tools.agent_toolset import AgentToolContext, beta_agent_toolset_20260401

from daemon.agent import preview_errors
from daemon.agent.tools import NAMES, TRUNCATED, Result, Tools, definitions
from daemon.workspace.files import open_workspace
from daemon.workspace.visits import PageError


@pytest.fixture
def workspace(tmp_path):
    with open_workspace(tmp_path / "w", max_file=1000) as workspace:
        yield workspace


@pytest.fixture
def tools(workspace):
    return Tools(workspace, max_result=100, settle=1.0)


def test_definitions_are_the_sdks_own():
    theirs = {tool.name: tool.to_dict() for tool in beta_agent_toolset_20260401(AgentToolContext(workdir="/"))}
    *sdks, own = definitions()
    assert [tool["name"] for tool in sdks] == ["read", "write", "edit"] == list(NAMES)
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


@pytest.mark.parametrize("size", [100, 101])
async def test_long_result_is_cut_with_a_mark(tools, workspace, size):
    workspace.write("a.txt", b"x" * size)
    result = await tools.run("read", {"file_path": "a.txt"})
    assert result.text == "x" * 100 + ("" if size == 100 else TRUNCATED.format(size=101))


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
    with open_workspace(tmp_path / "w", max_file=16 << 20) as workspace:
        tools = Tools(workspace, max_result=100, settle=1.0)
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


BAD: list[tuple[str, Any, str]] = [
    ("fly", {}, "there is no tool 'fly'"),
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
