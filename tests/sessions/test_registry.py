import shutil
from collections import Counter
from contextlib import closing
from functools import partial

import msgspec
import pytest
import trio
from trio_websocket import HandshakeError

from daemon.clients.follow import follow, open_client
from daemon.errors import Bug, CallerError
from daemon.journal.journal import load_journal
from daemon.journal.store import Store
from daemon.sessions.lifecycle import Reason, Status
from daemon.sessions.record import Record, Settings
from daemon.sessions.registry import Asked
from tests.sessions.house import (
    Crashes,
    Tunnels,
    answers,
    history,
    journaled_until,
    nothing_left,
    open_sessions,
    watching,
    write_script,
)
from tests.support import events_until, journaled, kinds, leftovers
from tunnel import TunnelError

HELLO = '[[turn]]\n[[turn.step]]\ntext = "Hello."'
SILENT = (
    '[[turn]]\n[[turn.step]]\ntext = "I begin to speak and then"\nfault = { kind = "silence", after = 4, times = 99 }'
)
# What is answered depends on the whole conversation that a request carries.
MEMORY = """
[[turn]]
once = true
[[turn.step]]
tool = [{ name = "write", input = { file_path = "a.txt", content = "kept" } }]
[[turn.step]]
text = "We have never met."
[[turn]]
[[turn.step]]
tool = [{ name = "read", input = { file_path = "a.txt" } }]
[[turn.step]]
text = "We have met: {{prompt}}"
"""
HI = Asked(message="hi", session_id="abc")


def more(message, **options):
    return Asked(message=message, session_id="abc", **options)


@pytest.fixture
def hello(tmp_path):
    return write_script(tmp_path, HELLO)


@pytest.fixture
def silent(tmp_path):
    return write_script(tmp_path, SILENT)
