"""Looking at processes, and ending them."""

import signal
import subprocess
from pathlib import Path

import pytest

from daemon.workspace.processes import descendants, interrupt, kill


def name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


@pytest.fixture
def tree():
    """A shell that has started one process in the background, which ignores SIGINT, and waits for another one."""
    script = "sleep 100 & echo $!; sleep 101"
    command = ["env", "--default-signal=INT", "sh", "-c", script]  # the tests may have been started ignoring it
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={}) as process:
        assert process.stdout is not None
        background = int(process.stdout.readline())
        while [name_of(pid) for pid in descendants(process.pid)] != ["sleep", "sleep"]:
            pass
        try:
            yield process, background
        finally:
            kill([*descendants(process.pid), background])
            process.kill()


def test_descendants_are_children_and_theirs(tree):
    process, background = tree
    assert descendants(process.pid)[0] == background
    assert len(descendants(process.pid)) == 2
    assert descendants(background) == []


def test_interrupt_spares_who_ignores_it(tree):
    process, background = tree
    foreground = [pid for pid in descendants(process.pid) if pid != background]
    interrupt([process.pid, *descendants(process.pid)])
    assert process.wait(timeout=10) == -signal.SIGINT
    assert descendants(background) == []
    assert Path(f"/proc/{background}/stat").read_text().split()[2] != "Z"
    assert foreground


def test_who_is_gone_is_no_matter():
    with subprocess.Popen(["true"], env={}) as process:
        process.wait()
    assert descendants(process.pid) == []
    interrupt([process.pid])
    kill([process.pid])
