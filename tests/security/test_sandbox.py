"""Attacks from inside the sandbox, each of which must be refused, as root and as an ordinary user."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.security.probes import PROBES
from tests.security.probing import ROOT, SECRET

HARMLESS = {  # probes that succeed where there is no sandbox, without doing harm: they show that a probe can tell
    "abstract_unix_socket",
    "dev_tcp",
    "kill_the_daemon",
    "processes_of_the_host",
    "read_a_file_of_the_host",
    "read_by_a_symlink",
    "read_the_daemons_state",
    "secret_in_an_environment",
    "tcp_to_the_hosts_loopback",
    "unix_socket_in_a_folder",
    "user_namespace",
}
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not Path("/usr/bin/python3").exists(), reason="the attacker is the system's Python"
)


def probed(folder: Path, *args: str, user: tuple[str, ...] = (), python: str = sys.executable) -> dict[str, str]:
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join([str(ROOT), *packages()]), "HOME": str(folder)}
    command = [*user, python, "-m", "tests.security.probing", str(folder), *args]
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def packages() -> list[str]:
    return [path for path in sys.path if path.endswith("site-packages")]


def python_of_nobody() -> str:
    """A Python with our dependencies that an ordinary user may run."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root becomes another user")
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join([str(ROOT), *packages()])}
    for python in (sys.executable, "/usr/bin/python3"):
        tried = [*NOBODY, python, "-c", "import tests.workspace.box"]
        if subprocess.run(tried, env=env, cwd="/", capture_output=True, check=False).returncode == 0:
            return python
    pytest.skip("an ordinary user may not read this folder, or not run a Python of this version")


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return probed(tmp_path_factory.mktemp("ours"), "bwrap")


@pytest.fixture(scope="module")
def nobodys(tmp_path_factory: pytest.TempPathFactory) -> Any:
    python = python_of_nobody()
    folder = Path(f"/tmp/footlight-nobody-{os.getpid()}")
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    try:
        yield probed(folder, "bwrap", user=NOBODY, python=python)
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("name", PROBES)
def test_probe_is_refused_to_the_user_of_the_tests(ours, name):
    assert ours[name].startswith("refused: "), ours[name]
    assert SECRET not in ours[name]


@pytest.mark.parametrize("name", PROBES)
def test_probe_is_refused_to_an_ordinary_user(nobodys, name):
    assert nobodys[name].startswith("refused: "), nobodys[name]


def test_probes_can_tell(tmp_path):
    found = probed(tmp_path, "none", *sorted(HARMLESS))
    closed = {name for name, got in found.items() if not got.startswith("OPEN: ")}
    assert closed <= {"user_namespace"}  # some systems forbid these to everyone
    assert set(found) == HARMLESS
