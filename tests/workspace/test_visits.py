"""Open pages: what they wait for, and how much of what they say is kept."""

from math import inf

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from daemon.workspace.visits import Full, PageError, Visits

ERROR = PageError("/", "oops", "app.js", 1, 2)


async def test_page_waits_until_the_files_change(autojump_clock):
    visits, woken = Visits(), []

    async def wait() -> None:
        await visits.wait_change(0)
        woken.append(visits.version)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        assert woken == []
        visits.changed()
    assert woken == [1, 1, 1]


async def test_page_that_knows_another_version_does_not_wait():
    visits = Visits()
    with trio.fail_after(1):
        await visits.wait_change(7)


async def test_nobody_waits_once_it_is_closed():
    visits = Visits()
    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(visits.wait_change, 0)
            await wait_all_tasks_blocked()
            visits.close()
        await visits.wait_change(0)


async def test_pages_that_wait_are_bounded_and_their_places_are_given_back():
    visits = Visits()
    async with trio.open_nursery() as nursery:
        for _ in range(200):
            nursery.start_soon(visits.wait_change, 0)
        await wait_all_tasks_blocked()
        with pytest.raises(Full):
            await visits.wait_change(0)
        nursery.cancel_scope.cancel()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(visits.wait_change, 0)
        await wait_all_tasks_blocked()
        visits.changed()


async def test_page_counts_as_open_while_it_waits_and_a_moment_longer(autojump_clock):
    visits = Visits()
    assert not visits.open
    async with trio.open_nursery() as nursery:
        nursery.start_soon(visits.wait_change, 0)
        await trio.sleep(100)
        assert visits.open
        nursery.cancel_scope.cancel()
    await trio.sleep(9)
    assert visits.open
    await trio.sleep(2)
    assert not visits.open


async def test_error_is_news_once_until_the_files_change():
    visits = Visits()
    assert visits.note(ERROR) == ERROR
    assert visits.note(ERROR) is None
    assert visits.errors == [ERROR]
    visits.changed()
    assert visits.errors == []
    assert visits.note(ERROR) == ERROR


async def test_errors_are_bounded_between_two_changes_and_in_a_run():
    visits, told = Visits(), 0
    for version in range(30):
        kept = [visits.note(ERROR._replace(line=line)) for line in range(100)]
        told += len(kept) - kept.count(None)
        assert len(visits.errors) <= 20
        assert told == min(200, 20 * (version + 1))
        visits.changed()


@pytest.mark.parametrize("number", [-1, 0, 1 << 31, 1 << 62])
def test_error_is_kept_in_a_size_that_can_be(number):
    error = PageError("p" * 9999, "m" * 9999, "s" * 9999, number, number).bounded()
    assert [len(text) for text in error[:3]] == [250, 500, 250]
    assert 0 <= error.line == error.column <= 1 << 31


def test_files_that_have_never_changed_were_never_changed():
    assert Visits().changed_at == -inf
