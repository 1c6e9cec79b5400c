import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from daemon.awaited import Again, Once


async def test_what_has_happened_once_is_waited_for_no_more(autojump_clock):
    once = Once()
    assert not once.is_set()
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(once.wait)
            await wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == 2
            once.set()
            once.set()
        assert once.is_set()
        with assert_checkpoints():
            await once.wait()


async def test_what_happens_again_is_waited_for_each_time(autojump_clock):
    again = Again()
    again.tell()  # nobody waits, and who comes later has missed it
    with trio.fail_after(5):
        for _ in range(2):
            async with trio.open_nursery() as nursery:
                for _ in range(2):
                    nursery.start_soon(again.wait)
                await wait_all_tasks_blocked()
                assert len(nursery.child_tasks) == 2
                again.tell()


@pytest.mark.parametrize(("make", "happen"), [(Once, Once.set), (Again, Again.tell)])
async def test_others_go_on_waiting_when_one_is_cancelled(autojump_clock, make, happen):
    awaited = make()
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(awaited.wait)
            with trio.move_on_after(1) as scope:
                await awaited.wait()
            assert scope.cancelled_caught
            assert len(nursery.child_tasks) == 1
            happen(awaited)
