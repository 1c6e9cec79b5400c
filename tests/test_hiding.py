"""Secrets are out of what others can read of the process."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux's /proc")


def run(program: str, **env: str) -> str:
    return subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True).stdout


def test_taken_secret_is_in_no_environment():
    program = (
        "import os, subprocess\nfrom daemon.hiding import take_secret\n"
        "print(take_secret('KEY'), take_secret('EMPTY'), take_secret('ABSENT'), 'KEY' in os.environ, os.environ['OTHER'])\n"
        "print(b'canary' in open('/proc/self/environ', 'rb').read(), subprocess.check_output(['env']).count(b'canary'))"
    )
    assert run(program, KEY="canary", EMPTY="", OTHER="x") == "canary None None False x\nFalse 0\n"


def test_process_cannot_be_inspected_by_its_user():
    program = "import ctypes\nfrom daemon.hiding import refuse_inspection\nrefuse_inspection()\nprint(ctypes.CDLL(None).prctl(3))"
    assert run(program) == "0\n"  # PR_GET_DUMPABLE
