import io
import shutil
from contextlib import closing

import pytest
import trio

from daemon import log
from daemon.journal.journal import open_journal
from daemon.journal.store import Store
from daemon.sessions.lifecycle import Reason, Status
from daemon.sessions.record import Record, Settings
from daemon.sessions.recovery import open_proven
from daemon.sessions.registry import Asked
from daemon.testing import test_config as make_config
from tests.sessions.house import history, journaled_until, nothing_left, open_sessions, watching, write_script
from tests.support import kinds, leftovers, steps_of

HELLO = '[[turn]]\n[[turn.step]]\ntext = "Hello."'
SILENT = (
    '[[turn]]\n[[turn.step]]\ntext = "I begin to speak and then"\nfault = { kind = "silence", after = 4, times = 99 }'
)
HI = Asked(message="hi", session_id="abc")


def more(message, **options):
    return Asked(message=message, session_id="abc", **options)


def make_record(name="abc", **fields):
    now = "2026-11-22T10:30:00.000Z"
    settings = Settings(model="scripted")
    return Record(session_id=name, created_at=now, last_activity=now, expires_at=None, settings=settings, **fields)


@pytest.fixture
def hello(tmp_path):
    return write_script(tmp_path, HELLO)


@pytest.fixture
def silent(tmp_path):
    return write_script(tmp_path, SILENT)


async def test_recovery_says_once_that_a_session_was_interrupted(tmp_path, silent):
    first, copy = tmp_path / "first", tmp_path / "copy"
    async with open_sessions(first, script=silent) as registry:
        await registry.chat(more("hi", message_id="m1"))
        await journaled_until(registry, "abc", "turn_start")
        await registry.chat(more("later", message_id="m2"))
        shutil.copytree(first, copy)
    for _ in range(3):
        async with open_sessions(copy, script=silent) as registry:
            view, events = registry.get("abc"), await history(registry, "abc")
            assert (view.status, view.offset, view.websocket_url) == ("interrupted", len(events), None)
            assert kinds(events).count("turn_start") == kinds(events).count("turn_complete") == 1
            assert kinds(events).count("session_end") == 1
            assert events[-1]["data"] == {
                "reason": "interrupted",
                "turn_count": 1,
                "detail": "the daemon ended while the session was alive",
                "processes_killed": 0,
            }
    async with open_sessions(copy, script=silent) as registry:
        assert (await registry.chat(more("hi", message_id="m1"))).accepted == "duplicate"
        assert (await registry.chat(more("later", message_id="m2"))).accepted == "queued"


@pytest.mark.parametrize("reason", [Reason.stopped, Reason.shutdown, Reason.completed])
async def test_recovery_of_a_session_that_had_said_its_end_adds_no_other(tmp_path, hello, reason):
    first, copy = tmp_path / "first", tmp_path / "copy"
    async with open_sessions(first, script=hello) as registry:
        await registry.chat(HI)
        await journaled_until(registry, "abc", "ready_for_input")
        session = registry._live["abc"]

        def copy_once_ended() -> None:
            if session.journal.ended and not copy.exists():
                shutil.copytree(first, copy)

        with watching(copy_once_ended):
            ended = await registry.stop("abc", reason)
            told = await history(registry, "abc")
    async with open_sessions(copy, script=hello) as registry:
        assert registry.get("abc").status == ended.status
        assert await history(registry, "abc") == told


async def test_recovery_of_a_session_that_was_just_opened_again_adds_nothing(tmp_path, hello):
    first, copy = tmp_path / "first", tmp_path / "copy"
    async with open_sessions(first, script=hello) as registry:
        await registry.chat(HI)
        await registry.stop("abc")
        told = await history(registry, "abc")
        await registry.chat(more("again"))
        shutil.copytree(first, copy)  # its task has not had its first step
    async with open_sessions(copy, script=hello) as registry:
        assert registry.get("abc").status == "interrupted"
        assert await history(registry, "abc") == told


@pytest.mark.parametrize("what", ["folder", "index"])
async def test_recovery_of_one_session_with_an_unusable_journal_keeps_no_other_from_starting(tmp_path, hello, what):
    now = "2026-11-22T10:30:00.000Z"
    with closing(Store(tmp_path / "footlight.db")) as store:
        for name in ("bad", "good"):
            record = Record(
                session_id=name, created_at=now, last_activity=now, expires_at=None, settings=Settings(model="scripted")
            )
            store.save(name, Status.running, record.encode())
    journal = tmp_path / "sessions" / "bad" / "journal"
    if what == "folder":
        journal.parent.mkdir(parents=True)
        journal.write_text("in the way")
    else:
        (journal / "abcdef" / "000000000001.index").mkdir(parents=True)
    async with open_sessions(tmp_path, script=hello) as registry:
        assert {registry.get(name).status for name in ("bad", "good")} == {Status.interrupted}
        await registry.chat(Asked(message="hi", session_id="good"))
        await journaled_until(registry, "good", "ready_for_input")


@pytest.mark.parametrize("reached", [True, False], ids=["seen", "unseen"])
async def test_journal_that_a_crash_left_half_written_goes_on_and_the_log_says_so(tmp_path, hello, reached):
    first, copy = tmp_path / "first", tmp_path / "copy"
    async with open_sessions(first, script=hello) as registry:
        await registry.chat(HI)
        await registry.stop("abc")
        told = await history(registry, "abc")
    shutil.copytree(first, copy)
    [frames] = (copy / "sessions" / "abc" / "journal").glob("*/*.frames")
    if reached:  # its index record was written, so a client may have been sent what is lost
        frames.write_bytes(frames.read_bytes()[:-5])
    else:
        frames.write_bytes(frames.read_bytes() + b"\x81\x05half")
    out = io.StringIO()
    log.configure("text", out=out)
    try:
        async with open_sessions(copy, script=hello) as registry:
            epoch = registry.get("abc").epoch
            await registry.chat(HI)
            events = await journaled_until(registry, "abc", "ready_for_input")
            assert (registry.get("abc").epoch == epoch) is not reached
    finally:
        log.configure("text", quiet=True)
    kept = told[:-1] if reached else told
    assert events[: len(kept)] == kept
    assert kinds(events)[len(kept)] == "session_start"
    [line] = [line for line in out.getvalue().splitlines() if "recovered" in line]
    assert line.startswith(f"WARNING: [Sandbox:abc] Journal recovered: {len(kept)} events; ")


@pytest.mark.parametrize("damage", ["flipped", "torn", "gone", "none"])
async def test_offset_of_a_session_is_what_its_journal_still_holds(tmp_path, hello, damage):
    async with open_sessions(tmp_path, script=hello) as registry:
        await registry.chat(HI)
        await journaled_until(registry, "abc", "ready_for_input")
        said = (await registry.stop("abc")).offset
    [frames] = (tmp_path / "sessions" / "abc" / "journal").glob("*/*.frames")
    data = frames.read_bytes()
    spoilt = {"flipped": data[:-2] + bytes([data[-2] ^ 1]) + data[-1:], "torn": data[:-5], "gone": b"", "none": data}
    frames.write_bytes(spoilt[damage])
    held = {"none": said, "gone": 0}.get(damage, said - 1)
    async with open_sessions(tmp_path, script=hello) as registry:
        assert registry.get("abc").offset == held
        assert len(await history(registry, "abc")) == held
        await registry.chat(HI)
        events = await journaled_until(registry, "abc", "ready_for_input", 1 if damage == "gone" else 2)
        assert registry.counts()["events"] == len(events) - held


@pytest.mark.parametrize("offset", [0, 2])
async def test_open_proven_cancelled_at_every_step_leaves_no_descriptor(tmp_path, offset):
    with open_journal("abc", tmp_path, limit=1 << 20) as (journal, _):
        for turn in range(offset):
            journal.append("ready_for_input", turn=turn, queued_prompts=0)

    async def body() -> None:
        journal = await open_proven(make_record(offset=offset), tmp_path, make_config(tmp_path))
        with closing(journal):
            assert journal.offset == offset

    with trio.fail_after(5):
        before = leftovers()
        for at in range(1, 2 + await steps_of(body)):
            await steps_of(body, at)
            await nothing_left(before)
