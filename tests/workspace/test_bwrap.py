"""A sandbox's command line; tests/security/ shows what it holds."""

import os
import subprocess
from pathlib import Path

import pytest

from daemon.workspace import bwrap
from daemon.workspace.bwrap import Limits, arguments, environment, first_lines, prelude

LIMITS = Limits(memory=256 << 20, processes=64, file=16 << 20, tmp=8 << 20, cpu=60)


def argv(root: Path, *, network: bool = False) -> list[str]:
    return arguments("/usr/bin/bwrap", Path("/w"), LIMITS, network=network, seccomp=7, passwd=8, root=root)


def test_folders_of_the_system_are_as_on_the_host(tmp_path):
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "sbin").symlink_to("/usr/sbin")
    (tmp_path / "lib").mkdir()
    text = " ".join(argv(tmp_path))
    assert "--symlink usr/bin /bin --symlink usr/sbin /sbin" in text
    assert f"--ro-bind {tmp_path}/lib /lib" in text
    assert "/lib64" not in text


def test_network_and_what_it_needs_is_there_only_when_asked_for(tmp_path):
    assert {"--share-net", "/etc/resolv.conf"} & set(argv(tmp_path)) == set()
    assert {"--share-net", "/etc/resolv.conf"} <= set(argv(tmp_path, network=True))


def test_nothing_of_the_host_is_writable_but_the_workspace(tmp_path):
    text = argv(tmp_path)
    assert [text[at + 1 : at + 3] for at, each in enumerate(text) if each == "--bind"] == [["/w", "/workspace"]]
    assert [text[at + 1] for at, each in enumerate(text) if each == "--remount-ro"] == ["/proc", "/dev", "/"]
    assert text.index("/") > text.index("--bind")


def test_environment_is_the_same_whatever_the_daemons(monkeypatch):
    monkeypatch.setenv("CANARY", "canary")
    assert not {"CANARY", "ANTHROPIC_API_KEY"} & environment().keys()
    assert "canary" not in str(argv(Path("/")))


@pytest.mark.parametrize("groups", [0, 1, 2])
def test_prelude_enters_its_groups_before_it_becomes_the_command(tmp_path, groups):
    folders = [tmp_path / str(number) for number in range(groups)]
    for folder in folders:
        folder.mkdir()
    command = prelude(["/bin/sh", "-c", 'echo $$ "$@"', "x", "a b", "--", "c"], folders)
    done = subprocess.run(command, env=bwrap.HOST_ENVIRONMENT, capture_output=True, text=True, check=True)
    pid, rest = done.stdout.split(" ", 1)
    assert rest == "a b -- c\n"
    assert [(folder / "cgroup.procs").read_text() for folder in folders] == [f"{pid}\n"] * groups


def test_prelude_that_cannot_enter_a_group_ends(tmp_path):
    done = subprocess.run(prelude(["echo", "ran"], [tmp_path / "absent"]), env={}, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (97, b"")


def test_first_lines_set_the_limits_and_prove_the_rest():
    reading, writing = os.pipe()
    lines = first_lines(LIMITS, writing) + b"ulimit -a\n"
    done = subprocess.run(["bash"], input=lines, env={}, pass_fds=[writing], capture_output=True, check=True)
    os.close(writing)
    with os.fdopen(reading, "rb") as said:
        proof = said.read()
    assert b"\nNoNewPrivs:\t" in proof
    assert proof.endswith(b"\n0 0\n")
    limits = {line[:20].strip(): line.split()[-1] for line in done.stdout.decode().splitlines()}
    assert (limits["file size"], limits["core file size"]) == ("16384", "0")
    assert (limits["data seg size"], limits["cpu time"], limits["max user processes"]) == (str(256 << 10), "60", "64")
