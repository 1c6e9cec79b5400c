from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.errors import Bug
from daemon.sessions.lifecycle import LIVE, STEP_OF, TERMINAL, TRANSITIONS, Phase, Reason, Status, Step, advance, shown

LEGAL = {(phase, step): after for phase, steps in TRANSITIONS.items() for step, after in steps.items()}


@pytest.mark.parametrize(("phase", "step"), [(phase, step) for phase in Phase for step in Step])
def test_a_step_leads_where_the_table_says_or_raises(phase, step):
    before = {key: dict(steps) for key, steps in TRANSITIONS.items()}
    if (phase, step) in LEGAL:
        assert advance(phase, step) is LEGAL[phase, step]
    else:
        with pytest.raises(Bug, match=f"{phase.name}.*{step.name}"):
            advance(phase, step)
    assert before == TRANSITIONS


def test_the_table_is_the_one_of_the_design():
    running = {Step.stop, Step.finished, Step.failed, Step.timeout}
    assert {phase: set(steps) for phase, steps in TRANSITIONS.items()} == {
        Phase.INITIALIZING: {Step.ready, Step.failed, Step.stop, Step.timeout},
        Phase.RUNNING: running,
        Phase.STOPPING: {Step.drained},
        Phase.ENDED: {Step.reopen},
    }
    assert all(TRANSITIONS[Phase.RUNNING][step] is Phase.STOPPING for step in running)


@given(st.lists(st.sampled_from(Step), max_size=60))
def test_any_walk_keeps_the_order_of_a_life(steps):
    phase, seen = Phase.INITIALIZING, [Phase.INITIALIZING]
    for step in steps:
        try:
            phase = advance(phase, step)
        except Bug:
            assert (phase, step) not in LEGAL
        else:
            seen.append(phase)
    for earlier, later in pairwise(seen):
        assert earlier is not later
        assert (later is Phase.INITIALIZING) == (earlier is Phase.ENDED), "only an ended session begins anew"
        assert (later is Phase.ENDED) == (earlier is Phase.STOPPING), "nothing ends without stopping"
        assert later is not Phase.RUNNING or earlier is Phase.INITIALIZING, "nothing runs without a URL that answers"


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.ENDED])
@pytest.mark.parametrize("reason", [None, *Reason])
def test_a_status_is_live_until_the_end_whatever_the_reason(phase, reason):
    assert shown(phase, reason) is Status(phase.name.lower())
    assert shown(phase, reason).live


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        ("completed", "completed"),
        ("idle", "completed"),
        ("stopped", "stopped"),
        ("timeout", "timeout"),
        ("error", "error"),
        ("shutdown", "interrupted"),
        ("interrupted", "interrupted"),
    ],
)
def test_an_ended_session_shows_what_it_ended_for(reason, status):
    assert shown(Phase.ENDED, Reason(reason)) == status
    assert not Status(status).live


def test_an_end_without_a_reason_is_a_bug():
    with pytest.raises(Bug, match="no reason"):
        shown(Phase.ENDED, None)


def test_every_reason_has_a_status_and_a_step_that_a_running_session_can_take():
    assert set(TERMINAL) == set(STEP_OF) == set(Reason)
    assert set(STEP_OF.values()) <= set(TRANSITIONS[Phase.RUNNING])
    assert not set(TERMINAL.values()) & LIVE
    assert set(TERMINAL.values()) | LIVE == set(Status)
