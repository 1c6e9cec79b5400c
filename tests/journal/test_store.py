"""The store: records, conversations, message ids, and a log that does not grow for ever."""

import apsw
import pytest
import trio

from daemon.journal.store import Store
from tests.support import descriptors


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "footlight.db")
    yield opened
    opened.close()


def test_record_is_loaded_as_it_was_saved_last(store):
    assert store.load("a") is None
    store.save("a", "running", b"1")
    store.save("b", "running", b"x")
    store.save("a", "completed", b"2")
    assert store.load("a") == b"2"
    assert store.load("b") == b"x"


def test_records_come_newest_first_and_a_page_at_a_time(store):
    for name in "abcde":
        store.save(name, "running", name.encode())
    store.save("a", "running", b"again")  # keeps its place
    pages, before = [], None
    while page := store.records(statuses=[], before=before, limit=2):
        pages.append([record for _, record in page])
        before = page[-1][0]
    assert pages == [[b"e", b"d"], [b"c", b"b"], [b"again"]]


def test_page_holds_its_place_when_a_session_is_added_meanwhile(store):
    for name in "abc":
        store.save(name, "running", name.encode())
    first = store.records(statuses=[], before=None, limit=2)
    store.save("d", "running", b"d")
    assert [record for _, record in store.records(statuses=[], before=first[-1][0], limit=2)] == [b"a"]


def test_records_and_counts_are_those_of_the_statuses_asked_for(store):
    for name, status in (("a", "running"), ("b", "completed"), ("c", "error"), ("d", "running")):
        store.save(name, status, name.encode())
    assert [record for _, record in store.records(statuses=["running"], before=None, limit=9)] == [b"d", b"a"]
    assert [record for _, record in store.records(statuses=["error", "completed"], before=None, limit=9)] == [
        b"c",
        b"b",
    ]
    assert [store.count(statuses) for statuses in ([], ["running"], ["running", "error"], ["none"])] == [4, 2, 3, 0]


def test_deleted_session_leaves_nothing_and_touches_no_other(store):
    for name in ("a", "b"):
        store.save(name, "running", b"1")
        store.add_message(name, 0, {"role": "user", "content": name})
        store.accept(name, "m")
    store.delete("a")
    assert (store.load("a"), store.conversation("a"), store.seen("a", "m")) == (None, [], False)
    assert (store.load("b"), len(store.conversation("b")), store.seen("b", "m")) == (b"1", 1, True)


def test_session_is_the_newest_when_it_is_saved_again_after_its_deletion(store):
    for name in "ab":
        store.save(name, "running", name.encode())
    store.delete("a")
    store.save("a", "running", b"a")
    assert [record for _, record in store.records(statuses=[], before=None, limit=9)] == [b"a", b"b"]


def test_conversation_comes_in_order_and_its_last_message_may_be_replaced(store):
    said = [{"role": "user", "content": f"{number}ä\x00"} for number in range(12)]
    for number in (3, 1, 0, 2, *range(4, 12)):
        store.add_message("a", number, said[number])
    store.add_message("b", 0, {"role": "user", "content": "other"})
    store.add_message("a", 11, {"role": "assistant", "content": [{"type": "text", "text": "new"}]})
    found = store.conversation("a")
    assert found == [*said[:11], {"role": "assistant", "content": [{"type": "text", "text": "new"}]}]


def test_message_id_is_seen_once_accepted_and_by_its_session_alone(store):
    assert not store.seen("a", "m")
    store.accept("a", "m")
    store.accept("a", "m")
    assert store.seen("a", "m")
    assert not store.seen("b", "m")
    assert not store.seen("a", "n")


def test_message_that_never_got_its_turn_may_be_sent_again(store):
    for session, message in (("a", "ran"), ("a", "waited"), ("b", "waited")):
        store.accept(session, message)
    store.start_message("a", "ran")
    store.forget_unstarted("a")
    assert store.seen("a", "ran")
    assert not store.seen("a", "waited")
    assert store.seen("b", "waited")


def test_message_stays_started_when_it_is_accepted_again(store):
    store.accept("a", "m")
    store.start_message("a", "m")
    store.accept("a", "m")
    store.forget_unstarted("a")
    assert store.seen("a", "m")


def test_everything_is_there_when_the_store_is_opened_again(tmp_path):
    before = descriptors()
    for turn in range(3):
        store = Store(tmp_path / "footlight.db")
        assert len(store.conversation("a")) == turn
        store.save("a", "running", b"%d" % turn)
        store.add_message("a", turn, {"content": turn})
        store.accept("a", f"m{turn}")
        store.close()
        store.close()
    store = Store(tmp_path / "footlight.db")
    assert (store.load("a"), store.count([]), store.seen("a", "m0")) == (b"2", 1, True)
    store.close()
    assert descriptors() == before


def test_commit_is_seen_by_another_connection_at_once(store, tmp_path):
    store.save("a", "running", b"1")
    other = apsw.Connection(str(tmp_path / "footlight.db"))
    try:
        assert list(other.execute("select record from sessions")) == [(b"1",)]
    finally:
        other.close()


def test_commit_does_not_wait_for_the_disk(store):
    assert list(store._db.execute("pragma journal_mode")) == [("wal",)]
    assert list(store._db.execute("pragma synchronous")) == [(1,)]  # normal
    assert list(store._db.execute("pragma wal_autocheckpoint")) == [(0,)]


async def test_log_stays_bounded_when_it_is_moved_into_the_database(store, tmp_path):
    """Ten times as much is written as the log holds before it is moved."""
    log, threads, sizes = tmp_path / "footlight.db-wal", trio.to_thread.current_default_thread_limiter(), []
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.run_checkpoints)
            for number in range(400):
                store.add_message("a", number % 40, {"content": "x" * 100_000})
                sizes.append(log.stat().st_size)
                while store._log_grew.is_set() or threads.borrowed_tokens:
                    await trio.sleep(0.001)
            nursery.cancel_scope.cancel()
    assert [len(message["content"]) for message in store.conversation("a")] == [100_000] * 40
    assert 3_900_000 < max(sizes) < 5_000_000
