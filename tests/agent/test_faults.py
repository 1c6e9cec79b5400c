"""The fault matrix: each fault at each place, with turns that complete and tools that run once."""

import pytest
import trio

from tests.agent.faults import CASES, play


@pytest.mark.parametrize("fault", dict.fromkeys(case.fault for case in CASES))
async def test_turn_survives_a_fault_wherever_it_happens_or_ends_at_once(tmp_path, fault):
    async with trio.open_nursery() as nursery:
        for case in CASES:
            if case.fault == fault:
                (folder := tmp_path / case.place).mkdir()
                nursery.start_soon(play, case, folder)


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.place == "in a tool input"], ids=lambda case: case.fault
)
async def test_turn_survives_a_fault_that_comes_again(tmp_path, case):
    await play(case, tmp_path, times=3)
