"""Finding files by name, and what grep is told."""

import subprocess
import time

import pytest

from daemon.workspace import search
from daemon.workspace.files import Refused, open_workspace
from daemon.workspace.search import find_files, find_text, grep_command, shown

NAMES = ("a.py", "b.txt", "src/c.py", "src/deep/er/d.py", "src/.hidden/e.py", "src/[x].py")


@pytest.fixture
def workspace(tmp_path):
    with open_workspace(tmp_path / "w", max_file=1 << 20) as workspace:
        for name in NAMES:
            workspace.write(name, b"text in %s\n" % name.encode())
        yield workspace


@pytest.mark.parametrize(
    ("pattern", "path", "found"),
    [
        ("*.py", None, {"a.py"}),
        ("**/*.py", None, {"a.py", "src/c.py", "src/deep/er/d.py", "src/.hidden/e.py", "src/[x].py"}),
        ("**", None, set(NAMES)),
        ("src/**", None, {name for name in NAMES if name.startswith("src/")}),
        ("src/**/d.py", None, {"src/deep/er/d.py"}),
        ("src/**/c.py", None, {"src/c.py"}),
        ("src/*", None, {"src/c.py", "src/[x].py"}),
        ("**/deep/**/*.py", None, {"src/deep/er/d.py"}),
        ("?.{py,txt}", None, {"a.py", "b.txt"}),
        ("{a,src/{c,x}}.py", None, {"a.py", "src/c.py"}),
        ("[ab].*", None, {"a.py", "b.txt"}),
        ("src/[[]x].py", None, {"src/[x].py"}),
        ("*.py", "src", {"src/c.py", "src/[x].py"}),
        ("*.py", "/workspace/src/", {"src/c.py", "src/[x].py"}),
        ("*.py", "/workspace", {"a.py"}),
        ("*.py", ".", {"a.py"}),
        ("", None, set()),
        ("**/**/**/**", None, set(NAMES)),
    ],
)
def test_pattern_finds(workspace, pattern, path, found):
    assert set(find_files(workspace, pattern, path)) == found


def test_hostile_name_pattern_is_soon_done(workspace):
    workspace.write("a" * 250, b"")
    started = time.perf_counter()
    assert find_files(workspace, "*a" * 400 + "b", None) == []
    assert find_files(workspace, "/".join(["**"] * 300 + ["x"]), None) == []
    assert time.perf_counter() - started < 2


def test_long_list_is_cut_with_a_mark(monkeypatch):
    monkeypatch.setattr(search, "MAX_FOUND", 2)
    assert shown(["a", "b"]) == "a\nb"
    assert shown(["a", "b", "c"]) == "a\nb\n[more than 2: ask for less]"


@pytest.mark.parametrize(("path", "found"), [(None, 5), ("src", 4), ("src/c.py", 1), ("absent", 0)])
def test_plain_text_is_found_through_the_door(workspace, path, found):
    lines = find_text(workspace, "py", path)
    assert len(lines) == found
    for line in lines:
        name, number, text = line.split(":")
        assert (number, text) == ("1", f"text in {name}")


def test_pattern_is_no_plain_text(workspace):
    with pytest.raises(Refused, match="plain text"):
        find_text(workspace, "a.b", None)


@pytest.mark.parametrize(
    "pattern", ["'; touch hacked; '", "$(touch hacked)", "-f/etc/passwd", "`touch hacked`", "x\ny"]
)
@pytest.mark.parametrize("path", [None, "$(touch hacked)", "-f", "a b; touch hacked"])
def test_grep_is_told_no_more_than_where_to_look(workspace, pattern, path):
    done = subprocess.run(
        ["bash", "-c", grep_command(pattern, path)],
        cwd=workspace.root,
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
    assert sorted(workspace.files()) == sorted(NAMES)
    assert "root:" not in done.stdout
    assert done.returncode in {1, 2}


def test_grep_says_where_what_stands(workspace):
    done = subprocess.run(
        ["bash", "-c", grep_command(r"in [ab]\.\w+$", None)],
        cwd=workspace.root,
        env={},
        capture_output=True,
        text=True,
        check=True,
    )
    assert sorted(done.stdout.split("\n")) == ["", "a.py:1:text in a.py", "b.txt:1:text in b.txt"]
