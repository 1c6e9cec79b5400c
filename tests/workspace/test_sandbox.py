"""One session's sandbox: a real one, by bubblewrap."""

import os
import threading
from pathlib import Path

import pytest
import trio

from daemon.workspace.files import Refused
from daemon.workspace.shell import Shell
from tests.support import children, leftovers, steps_of
from tests.workspace.box import Box, open_box


@pytest.fixture
async def box(tmp_path):
    async with open_box(tmp_path) as box:
        yield box


async def test_shell_keeps_folder_variables_and_functions(box):
    await box.prints("mkdir d; cd d; x='a b'; f() { echo f$1; }; export Y=1")
    assert await box.prints('echo "$PWD $x"; f 2; env | grep ^Y=') == "/workspace/d a b\nf2\nY=1\n"


@pytest.mark.parametrize(
    ("command", "code", "text"),
    [
        ("false", 1, ""),
        ("echo 'unclosed", 2, "unexpected EOF"),
        ("cat <<E\nhere\nE", 0, "here\n"),
        ("echo it\\'s; echo 'a'\"'\"'b'", 0, "it's\na'b\n"),
        ("read x; cat; echo read", 0, "read\n"),
        ("nosuchcommand", 127, "not found"),
        ("echo one\n# a comment\necho two", 0, "one\ntwo\n"),
        ("kill -9 $BASHPID & wait $!", 137, ""),
        ("printf %s ü€", 0, "ü€"),
        ("echo !! !x", 0, "!! !x\n"),
        ("true", 0, ""),
        ("", 0, ""),
    ],
)
async def test_command_gives_its_code_and_text(box, command, code, text):
    outcome = await box.run(command)
    assert (outcome.code, outcome.remark) == (code, None)
    assert text in outcome.text if text else "unexpected" not in outcome.text
    assert (await box.run("echo on")).text == "on\n"


async def test_long_command_is_carried_out_whole(box):
    text = "x" * 300_000
    assert await box.prints(f"y={text}; echo ${{#y}}") == "300000\n"


async def test_output_is_shown_while_the_command_runs(box):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(box.run, "echo begun; while [ ! -e go ]; do sleep 0.01; done; echo ended")
        await box.until_shown("begun\n")
        assert "ended" not in "".join(box.shown)
        box.workspace.write("go", b"")
    assert "".join(box.shown) == "begun\nended\n"


async def test_background_process_outlives_its_command_and_is_heard_with_the_next(box):
    await box.prints("(while [ ! -e go ]; do sleep 0.01; done; echo heard; touch said) &")
    box.workspace.write("go", b"")
    while not box.workspace.has("said"):
        await trio.sleep(0.005)
    assert "heard\n" in await box.prints("echo next")
    assert "heard" not in await box.prints("echo next")


async def test_background_process_that_prints_does_not_stand_still_between_commands(box):
    await box.prints("(head -c 3000000 /dev/zero; touch done) &")
    while not box.workspace.has("done"):
        await trio.sleep(0.005)


async def test_interrupted_command_ends_and_its_shell_goes_on(box):
    await box.prints("x=3; sleep 1000 & until grep -q sleep /proc/$!/comm; do :; done")
    started = trio.current_time()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(box.run, "for i in 1 2 3; do sh -c 'echo begun; exec sleep 1000'; done; touch wrong")
            await box.until_shown("begun")
            started = trio.current_time()
            scope.cancel()
    assert scope.cancelled_caught
    assert trio.current_time() - started < 0.5
    text = await box.prints("echo $x; jobs")
    assert text.startswith("3\n")
    assert "Running" in text
    assert not box.workspace.has("wrong")
    assert await box.sandbox.close() == 2  # the one in front by the interrupt, the other one now


async def test_command_in_a_process_group_of_its_own_is_interrupted_too(box):
    await box.prints("x=3")
    outcome = await box.run("timeout 1000 sh -c 'echo begun; exec sleep 1000'", deadline=0.2)
    assert outcome.text.startswith("begun\n")
    assert (outcome.code, outcome.remark) == (None, "ended after 0.2 s")
    assert await box.prints("echo $x") == "3\n"
    assert await box.sandbox.close() == 2  # both had to be ended


async def test_command_that_ignores_the_interrupt_is_killed_with_its_shell(box):
    await box.prints("x=3")
    started = trio.current_time()
    outcome = await box.run("trap '' INT; sh -c 'echo kept; exec sleep 1000'", deadline=0.2)
    assert trio.current_time() - started < 0.2 + 1
    assert outcome.text == "kept\n"
    assert outcome.remark is not None
    assert "its shell had to be killed" in outcome.remark
    assert await box.prints("echo $x.") == ".\n"
    assert await box.sandbox.close() == 1


async def test_shell_that_ends_itself_is_followed_by_a_new_one(box):
    for command in ("exit 3", "kill -9 $$", "exec true", "set -e; false"):
        outcome = await box.run(command)
        assert (outcome.code, outcome.remark) == (None, "the shell has ended; the next command gets a new one")
        assert await box.prints("echo on") == "on\n"


async def test_restart_kills_what_runs(box):
    before = children()
    await box.prints("sleep 1000 & x=3")
    await box.sandbox.restart()
    assert await box.prints("echo $x; jobs; ls /proc | grep -c '^[0-9]'") == "\n4\n"  # bwrap, bash, ls, grep
    assert len(children() - before) == 1


async def test_close_counts_what_still_ran_and_leaves_nothing(tmp_path):
    before = leftovers()
    async with open_box(tmp_path) as box:
        assert children() == before[1]  # nothing was started yet
        await box.prints("sleep 1000 & (setsid sleep 1001 &) ; (sleep 1002 &)")
        assert await box.sandbox.close() == 3
        assert children() == before[1]
        assert await box.sandbox.close() == 3
    after = leftovers()
    assert after[:2] == before[:2]
    assert not groups()


async def test_what_the_shell_took_with_it_by_itself_does_not_count(box):
    await box.prints("sleep 1000 &")
    await box.run("exit")
    assert await box.sandbox.close() == 0


async def test_command_that_forges_exit_codes_fools_itself_alone(box):
    await box.run("for fd in /proc/$$/fd/*; do printf '1 %05000d\\n1 x\\n' 1 > $fd; done 2> /dev/null", deadline=5)
    assert (await box.prints("echo on")).endswith("on\n")  # the shell was fed nonsense too


def groups() -> list[Path]:
    """Control groups of this process's sandboxes."""
    return [path for path in Path("/sys/fs/cgroup").rglob(f"footlight-{os.getpid()}-*") if path.is_dir()]


async def test_cancelled_at_any_step_nothing_is_left(tmp_path):
    async def body() -> None:
        async with open_box(tmp_path, quota_interval=0.01) as box:
            await box.run("echo one; sleep 0.02 &")
            await box.run("echo two")

    await body()
    before = leftovers()[:2]
    steps = await steps_of(body)
    assert steps > 10
    for step in range(1, steps + 1):
        await steps_of(body, step)
        assert leftovers()[:2] == before, f"step {step} of {steps}"
    assert not groups()


async def test_workspace_that_grows_beyond_its_limit_ends_the_shell_and_can_be_emptied(tmp_path):
    async with open_box(tmp_path, workspace_limit=8 << 20, quota_interval=0.02) as box:
        await box.prints("sleep 1000 &")
        outcome = await box.run("for i in $(seq 1000); do head -c 1M /dev/urandom > $i; sleep 0.02; done")
        assert outcome.code is None
        assert outcome.remark == (
            "killed with its shell: the workspace holds more than its 8 MB; until something is deleted, commands cannot write"
        )
        files = len(box.workspace.files())
        assert files < 30
        outcome = await box.run("echo x > more; head -c 10 /dev/zero > most; echo code $?; rm -f more most")
        assert outcome.text.count("File too large") >= 1
        assert "code 1" in outcome.text
        assert len(box.workspace.files()) == files
        assert (await box.run("ls | tail -n +3 | xargs rm")).code == 0
        assert await box.prints("echo x > more; cat more") == "x\n"


async def test_burst_that_is_over_before_it_is_counted_is_found_at_its_end(tmp_path):
    async with open_box(tmp_path, workspace_limit=8 << 20, quota_interval=1000.0) as box:
        outcome = await box.run("head -c 20M /dev/urandom > big")
        assert "the workspace holds more than its 8 MB" in (outcome.remark or "")
        assert (await box.run("echo x > more")).code == 1


async def test_background_process_is_counted_too(tmp_path):
    async with open_box(tmp_path, workspace_limit=8 << 20, quota_interval=0.02) as box:
        await box.run("(sleep 0.1; head -c 20M /dev/urandom > big; sleep 1000) &")
        while len(box.sandbox._shell.inside() if box.sandbox._shell else []):
            await trio.sleep(0.01)
        assert (await box.run("echo x > more")).code == 1


async def test_processes_are_looked_at_away_from_the_daemons_loop(tmp_path, monkeypatch):
    looked: list[bool] = []
    inside = Shell.inside

    def watched(shell: Shell) -> list[int]:
        looked.append(threading.current_thread() is threading.main_thread())
        return inside(shell)

    monkeypatch.setattr(Shell, "inside", watched)
    async with open_box(tmp_path, quota_interval=0.01) as box:
        await box.run("sleep 1000 &")
        looked.clear()
        await box.run("sleep 0.2")
        assert len(looked) >= 3
        assert not any(looked)


async def test_background_process_of_a_short_command_is_noticed(tmp_path):
    async with open_box(tmp_path, workspace_limit=8 << 20, quota_interval=0.02) as box:
        for _ in range(10):  # the command is over before or while the count before it ends
            await box.run("true")
        await box.run("(sleep 0.3; head -c 20M /dev/urandom > big; sleep 1000) &")
        while box.sandbox._shell:
            await trio.sleep(0.01)


async def test_file_without_a_name_is_counted_for_as_long_as_it_is_open(tmp_path):
    async with open_box(tmp_path, workspace_limit=8 << 20, quota_interval=0.02) as box:
        outcome = await box.run("exec 8> big; rm big; head -c 20M /dev/urandom >&8; sleep 1000")
        assert "more than its 8 MB" in (outcome.remark or "")
        assert await box.prints("echo x > more; cat more") == "x\n"


async def test_many_empty_files_are_counted(tmp_path):
    async with open_box(tmp_path, max_workspace_entries=100, quota_interval=0.02) as box:
        outcome = await box.run("for i in $(seq 100000); do : > $i; done")
        assert "more than 100 files and folders" in (outcome.remark or "")


async def test_folders_that_hide_are_refused(tmp_path):
    async with open_box(tmp_path, quota_interval=0.02) as box:
        outcome = await box.run("for i in $(seq 140); do mkdir d; cd d; done; sleep 5")
        assert "cannot be counted" in (outcome.remark or "")
        with pytest.raises(Refused, match="cannot be counted"):
            await box.run("echo")


@pytest.mark.parametrize(
    ("settings", "command", "says"),
    [
        ({}, "python3 -c 'x = bytearray(2 << 30)'", "MemoryError"),
        ({"sandbox_file": 1 << 20}, "head -c 2M /dev/zero > f; stat -c %s f", "1048576"),
        ({"sandbox_tmp": 1 << 20}, "head -c 2M /dev/zero > /tmp/f; stat -c %s /tmp/f", "1048576"),
        ({"sandbox_tmp": 1 << 20}, "head -c 2M /dev/zero > /dev/shm/f; stat -c %s /dev/shm/f", "1048576"),
        ({"sandbox_cpu": 1}, "while :; do :; done & wait $!; echo code $?", "code 1"),
    ],
)
async def test_limit_holds(tmp_path, settings, command, says):
    async with open_box(tmp_path, **settings) as box:
        assert says in (await box.run(command)).text


async def test_without_bubblewrap_no_command_is_run(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    async with open_box(tmp_path) as box:
        with pytest.raises(Refused, match="bubblewrap is not installed"):
            await box.run("touch ran")
        assert box.workspace.files() == []


@pytest.mark.parametrize(
    "words", ["echo 'no namespaces for you' >&2; exit 1", "exec sleep 1000", "exit 0", "exec /bin/bash"]
)
async def test_sandbox_that_does_not_prove_itself_is_refused(tmp_path, monkeypatch, words):
    before = children()
    bwrap = tmp_path / "bin" / "bwrap"
    bwrap.parent.mkdir()
    bwrap.write_text(f"#!/bin/sh\n{words}\n")
    bwrap.chmod(0o755)
    monkeypatch.setenv("PATH", str(bwrap.parent))
    async with open_box(tmp_path, shell_deadline=1.0) as box:
        with pytest.raises(Refused, match="no command can be run") as refused:
            await box.run("touch ran")
        assert box.workspace.files() == []
        assert children() == before
    assert ("no namespaces for you" in str(refused.value)) == words.startswith("echo")


async def test_sandbox_none_runs_as_the_user_with_an_environment_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("CANARY", "canary")
    before = children()
    async with open_box(tmp_path, sandbox="none") as box:
        assert await box.prints("echo $PWD $CANARY; cd /") == f"{box.workspace.root}\n"
        assert await box.prints("echo $PWD") == "/\n"
        await box.prints("sleep 1000 & sleep 1001 &")
        assert await box.sandbox.close() == 2
    assert children() == before


async def test_commands_of_one_shell_come_one_after_the_other(box: Box):
    assert [await box.prints(f"echo {number}") for number in range(50)] == [f"{number}\n" for number in range(50)]
