"""Limits on all processes of a sandbox together, by control groups where they may be made (root); version 1 or 2.

An ordinary user gets limits per process alone: docs/security.md says what that leaves open.
"""

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from daemon.workspace.bwrap import Limits

_NAME = "footlight-{pid}-{id}"
_OURS = re.compile(r"footlight-(\d+)-[0-9a-f]+")
_SHARES = 128  # of 1024 that a process outside has: a session at full load leaves the daemon its time
_WEIGHT = 12  # the same of version 2's 100


def parents(mounts: str, own: str) -> dict[str, Path]:
    """Where groups may be made, by controller; pure. `mounts` and `own` are /proc/self/mounts and /proc/self/cgroup."""
    paths = {}
    for line in own.splitlines():
        _, controllers, path = line.split(":", 2)
        paths.update(dict.fromkeys(controllers.split(","), path))
    found: dict[str, Path] = {}
    for line in mounts.splitlines():
        _, point, kind, options, *_ = line.split(" ")
        if kind == "cgroup2":
            # Its top: a group that holds processes, such as the daemon's own, may hand no controllers down.
            found.setdefault("", Path(point))
        elif kind == "cgroup":
            for controller in {"memory", "pids", "cpu"} & set(options.split(",")):
                found[controller] = Path(point) / paths.get(controller, "/").lstrip("/")
    return found


def wanted(found: dict[str, Path], controllers_of_v2: set[str], limits: Limits) -> dict[Path, dict[str, int | str]]:
    """Which files of a new group get which values, by the group's parent; pure."""
    if {"memory", "pids"} <= found.keys():
        memory = limits.memory
        swap = {"memory.memsw.limit_in_bytes": memory}
        groups: dict[Path, dict[str, int | str]] = {
            found["memory"]: {"memory.limit_in_bytes": memory, **swap},
            found["pids"]: {"pids.max": limits.processes},
        }
        if "cpu" in found:
            groups.setdefault(found["cpu"], {})["cpu.shares"] = _SHARES
        return groups
    if {"memory", "pids"} <= controllers_of_v2:
        values: dict[str, int | str] = {
            "memory.max": limits.memory,
            "memory.swap.max": 0,
            "pids.max": limits.processes,
            "cpu.weight": _WEIGHT,
        }
        return {found[""]: values}
    return {}


@contextmanager
def open_group(limits: Limits) -> Iterator[list[Path]]:
    """The groups for one sandbox, none where they cannot be made; leaving removes those that `remove` has left."""
    try:
        found = parents(Path("/proc/self/mounts").read_text(), Path("/proc/self/cgroup").read_text())
        v2 = set((found[""] / "cgroup.subtree_control").read_text().split()) if "" in found else set()
    except OSError:
        found, v2 = {}, set()
    made: list[Path] = []
    try:
        try:
            for parent, values in wanted(found, v2, limits).items():
                _sweep(parent)
                group = parent / _NAME.format(pid=os.getpid(), id=secrets.token_hex(6))
                group.mkdir()
                made.append(group)
                for name, value in values.items():
                    if (group / name).exists():
                        (group / name).write_text(str(value))
        except OSError:
            remove(made)
        yield made
    finally:
        remove(made)


def members(groups: list[Path]) -> list[int]:
    """The processes in them."""
    found: list[int] = []
    for group in groups[:1]:
        with suppress(OSError):
            found += map(int, (group / "cgroup.procs").read_text().split())
    return found


def _sweep(parent: Path) -> None:
    """Remove what a daemon left that was killed: only empty groups can be removed."""
    for group in parent.glob("footlight-*"):
        match = _OURS.fullmatch(group.name)
        if match and not Path(f"/proc/{match[1]}").exists():
            remove([group])


def remove(groups: list[Path]) -> bool:
    """Remove those that are empty; whether all are gone. A process leaves its groups a little after its end is known."""
    for group in list(groups):
        try:
            group.rmdir()
        except FileNotFoundError:
            groups.remove(group)
        except OSError:
            continue
        else:
            groups.remove(group)
    return not groups
