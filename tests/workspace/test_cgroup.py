"""Control groups: where they may be made, and what becomes of them."""

import os
from pathlib import Path

import pytest

from daemon.workspace import cgroup
from daemon.workspace.bwrap import Limits

LIMITS = Limits(memory=1 << 30, processes=64, file=1, tmp=1, cpu=1)
V1 = """\
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0
cgroup /sys/fs/cgroup/pids cgroup rw,relatime,pids 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0
"""
V2 = "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n"


def test_version_1_takes_a_group_of_each_controller_beneath_our_own():
    found = cgroup.parents(V1, "4:memory:/box/1\n3:cpu,cpuacct:/\n2:pids:/\n0::/x\n")
    memory, pids, cpu = (Path("/sys/fs/cgroup") / name for name in ("memory/box/1", "pids", "cpu,cpuacct"))
    assert cgroup.wanted(found, set(), LIMITS) == {
        memory: {"memory.limit_in_bytes": 1 << 30, "memory.memsw.limit_in_bytes": 1 << 30},
        pids: {"pids.max": 64},
        cpu: {"cpu.shares": cgroup._SHARES},
    }


def test_version_2_takes_one_group_at_the_top():
    found = cgroup.parents(V2, "0::/system.slice/footlight.service\n")
    values = cgroup.wanted(found, {"memory", "pids", "cpu"}, LIMITS)[Path("/sys/fs/cgroup")]
    assert (values["memory.max"], values["pids.max"], values["memory.swap.max"]) == (1 << 30, 64, 0)
    assert cgroup.wanted(found, {"pids"}, LIMITS) == {}


def test_no_controllers_no_groups():
    assert cgroup.wanted(cgroup.parents("", ""), set(), LIMITS) == {}


@pytest.fixture
def parent(tmp_path, monkeypatch):
    """A folder in place of the kernel's: what is made there is seen, though nothing comes of it."""
    monkeypatch.setattr(cgroup, "wanted", lambda *_: {tmp_path: {"pids.max": 5}})
    return tmp_path


def test_groups_are_removed_on_the_way_out_with_those_of_a_killed_daemon(parent):
    stale, alive, foreign = (parent / f"footlight-{pid}-abc" for pid in (4_000_000, os.getpid(), "x"))
    for group in (stale, alive, foreign):
        group.mkdir()
    with cgroup.open_group(LIMITS) as groups:
        assert [group.parent for group in groups] == [parent]
        assert not stale.exists()
    assert sorted(parent.iterdir()) == sorted([alive, foreign])


def test_groups_that_cannot_be_made_are_done_without(parent):
    parent.rmdir()
    with cgroup.open_group(LIMITS) as groups:
        assert groups == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes groups")
def test_who_enters_is_a_member():
    with cgroup.open_group(LIMITS) as groups:
        if not groups:
            pytest.skip("this machine lets not even root make groups")
        assert cgroup.members(groups) == []
        assert (next(group for group in groups if (group / "pids.max").exists()) / "pids.max").read_text() == "64\n"
    assert not any(group.exists() for group in groups)
