import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from daemon.occupancy import Occupancy


async def test_nobody_inside_is_waited_for_at_once():
    with assert_checkpoints():
        await Occupancy().wait_empty()


async def test_everybody_who_waits_is_told_when_the_last_has_left(autojump_clock):
    inside: Occupancy[str] = Occupancy()
    told = []

    async def wait(name):
        await inside.wait_empty()
        told.append(name)

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            with inside.entered("a"):
                nursery.start_soon(wait, 1)
                await wait_all_tasks_blocked()
                with inside.entered("a"):
                    nursery.start_soon(wait, 2)
                    await wait_all_tasks_blocked()
                    assert list(inside) == ["a", "a"]
                assert (len(inside), told) == (1, [])
    assert sorted(told) == [1, 2]


async def test_who_enters_again_before_the_waiter_runs_is_waited_for(autojump_clock):
    inside: Occupancy[str] = Occupancy()
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            with inside.entered("a"):
                nursery.start_soon(inside.wait_empty)
                await wait_all_tasks_blocked()
            with inside.entered("b"):
                await wait_all_tasks_blocked()
                assert nursery.child_tasks
            await wait_all_tasks_blocked()
            assert not nursery.child_tasks
