"""One thing for many who want it."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tunnel import TunnelError
from tunnel.wanted import Wanted


async def test_all_who_wait_get_it(autojump_clock) -> None:
    wanted, got = Wanted[str](), []

    async def want() -> None:
        got.append(await wanted.get(10))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(want)
        nursery.start_soon(want)
        await wait_all_tasks_blocked()
        wanted.have("it")
    assert got == ["it", "it"]
    assert await wanted.get(0) == "it"


async def test_patience_ends(autojump_clock) -> None:
    began = trio.current_time()
    with pytest.raises(TunnelError, match="within 5 s"):
        await Wanted[str]().get(5)
    assert trio.current_time() - began == 5


async def test_failure_is_told_to_who_waits_and_the_next_one_asks_again(autojump_clock) -> None:
    wanted, attempts = Wanted[str](), []

    async def provide() -> None:
        for number in range(2):
            attempts.append(number)
            await trio.sleep(1)
            await wanted.lack(TunnelError(f"no-{number}", "not there"))
        wanted.have("there")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(provide)
        for number in range(2):
            with pytest.raises(TunnelError, match=f"no-{number}"):
                await wanted.get(10)
            await trio.sleep(100)  # nobody wants it: nobody tries
            assert attempts == list(range(number + 1))
        assert await wanted.get(10) == "there"


async def test_one_who_gives_up_leaves_the_others_waiting(autojump_clock) -> None:
    wanted, got = Wanted[str](), []

    async def want() -> None:
        got.append(await wanted.get(10))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(want)
        with pytest.raises(TunnelError):
            await wanted.get(1)
        wanted.have("it")
    assert got == ["it"]
