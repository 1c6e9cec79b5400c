import msgspec
import pytest
import trio

from daemon.clients.auth import Role
from daemon.clients.hub import Hub
from daemon.journal.cursor import Cursor
from daemon.journal.frames import end_of_frame, payload_of
from daemon.journal.journal import open_journal


@pytest.fixture
def journal(tmp_path):
    with open_journal("s1", tmp_path / "journal", limit=1 << 20) as (opened, _):
        yield opened


def events_in(data):
    found, start, view = [], 0, memoryview(data)
    while start < len(data):
        end = end_of_frame(view, start)
        found.append(msgspec.json.decode(payload_of(view[start:end])))
        start = end
    return found


def live(journal):
    """A reader that is caught up; each call gives what was published since."""
    cursor = Cursor(journal, journal.offset)
    assert cursor.read_nowait() is None

    def read():
        chunk = cursor.read_nowait()
        return [(event["event"], event["data"]) for event in events_in(chunk.data)] if chunk else []

    return read


def test_clients_are_numbered_and_counted(journal):
    hub = Hub(journal)
    with hub.joined(Role.control) as one:
        with hub.joined(Role.watch) as two:
            assert (one.client_id, two.client_id, len(hub)) == (1, 2, 2)
        assert len(hub) == 1
        with hub.joined(Role.watch) as three:
            assert three.client_id == 3  # an id is never given again
    assert len(hub) == 0


def test_presence_is_published_with_counts(journal):
    hub, published = Hub(journal), live(journal)
    with hub.joined(Role.control):
        assert published() == [("client_joined", {"client_id": 1, "role": "control", "connected_clients": 1})]
        with hub.joined(Role.watch):
            assert published() == [("client_joined", {"client_id": 2, "role": "watch", "connected_clients": 2})]
        assert published() == [("client_left", {"client_id": 2, "role": "watch", "connected_clients": 1})]
    assert published() == [("client_left", {"client_id": 1, "role": "control", "connected_clients": 0})]


def test_presence_is_live_only(journal):
    with Hub(journal).joined(Role.control):
        pass
    assert journal.offset == 0


def test_a_client_that_fails_is_counted_out(journal):
    hub, published = Hub(journal), live(journal)
    with pytest.raises(KeyError), hub.joined(Role.control):
        raise KeyError
    assert len(hub) == 0
    assert [kind for kind, _ in published()] == ["client_joined", "client_left"]


def test_nothing_is_published_once_the_journal_has_ended(journal):
    hub, published = Hub(journal), live(journal)
    with hub.joined(Role.control):
        published()
        journal.end()
    assert published() == []
    assert len(hub) == 0


async def test_drain_waits_for_the_last_client(journal):
    hub, left = Hub(journal), []
    may_leave = trio.Event(), trio.Event()

    async def client(number):
        with hub.joined(Role.watch):
            await may_leave[number].wait()

    async def drain():
        await hub.drain()
        left.append("drained")

    with trio.fail_after(2):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client, 0)
            nursery.start_soon(client, 1)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(drain)
            nursery.start_soon(drain)
            may_leave[0].set()
            await trio.testing.wait_all_tasks_blocked()
            assert left == []
            may_leave[1].set()
    assert left == ["drained", "drained"]


async def test_drain_waits_again_for_a_client_that_joined_meanwhile(journal):
    hub, drained = Hub(journal), []
    first, second = hub.joined(Role.watch), hub.joined(Role.watch)

    async def drain():
        await hub.drain()
        drained.append(True)

    with trio.fail_after(2):
        async with trio.open_nursery() as nursery:
            first.__enter__()
            nursery.start_soon(drain)
            await trio.testing.wait_all_tasks_blocked()
            first.__exit__(None, None, None)
            second.__enter__()
            await trio.testing.wait_all_tasks_blocked()
            assert not drained
            second.__exit__(None, None, None)
    assert drained


async def test_drain_of_an_empty_hub_returns_and_is_a_checkpoint(journal):
    with trio.fail_after(1), trio.testing.assert_checkpoints():
        await Hub(journal).drain()
