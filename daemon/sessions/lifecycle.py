"""The life of a session, as a table; pure.

An absent key is illegal: it raises `Bug` and changes nothing. `ENDED` shows as one of `Status`'s terminal values,
which `TERMINAL` derives from the reason it ended for.
"""

from enum import Enum, StrEnum, auto

from daemon.errors import Bug


class Phase(Enum):
    """Where a session stands."""

    INITIALIZING = auto()
    RUNNING = auto()
    STOPPING = auto()
    ENDED = auto()


class Step(Enum):
    """What may happen to a session."""

    ready = auto()  # its URL answers
    stop = auto()  # somebody asked for its end
    finished = auto()  # its work is done
    timeout = auto()  # its time is up
    failed = auto()  # it cannot go on
    drained = auto()  # all it owned is gone
    reopen = auto()  # a message to an ended session


class Status(StrEnum):
    """What the API shows."""

    initializing = "initializing"
    running = "running"
    stopping = "stopping"
    completed = "completed"
    stopped = "stopped"
    timeout = "timeout"
    error = "error"
    interrupted = "interrupted"

    @property
    def live(self) -> bool:
        """Whether a session with this status owns anything."""
        return self in LIVE


class Reason(StrEnum):
    """Why a session ended: the `reason` of its `session_end`."""

    completed = "completed"
    stopped = "stopped"
    timeout = "timeout"
    idle = "idle"
    error = "error"
    shutdown = "shutdown"
    interrupted = "interrupted"


LIVE = frozenset({Status.initializing, Status.running, Status.stopping})

TRANSITIONS: dict[Phase, dict[Step, Phase]] = {
    Phase.INITIALIZING: {
        Step.ready: Phase.RUNNING,
        Step.failed: Phase.STOPPING,
        Step.stop: Phase.STOPPING,
        Step.timeout: Phase.STOPPING,
    },
    Phase.RUNNING: {
        Step.stop: Phase.STOPPING,
        Step.finished: Phase.STOPPING,
        Step.failed: Phase.STOPPING,
        Step.timeout: Phase.STOPPING,
    },
    Phase.STOPPING: {Step.drained: Phase.ENDED},
    Phase.ENDED: {Step.reopen: Phase.INITIALIZING},
}

TERMINAL: dict[Reason, Status] = {
    Reason.completed: Status.completed,
    Reason.idle: Status.completed,
    Reason.stopped: Status.stopped,
    Reason.timeout: Status.timeout,
    Reason.error: Status.error,
    # The user did not end these: the daemon did, and the session can be opened again.
    Reason.shutdown: Status.interrupted,
    Reason.interrupted: Status.interrupted,
}

STEP_OF: dict[Reason, Step] = {
    Reason.completed: Step.finished,
    Reason.idle: Step.finished,
    Reason.stopped: Step.stop,
    Reason.shutdown: Step.stop,
    Reason.interrupted: Step.stop,
    Reason.timeout: Step.timeout,
    Reason.error: Step.failed,
}

_SHOWN = {Phase.INITIALIZING: Status.initializing, Phase.RUNNING: Status.running, Phase.STOPPING: Status.stopping}


def advance(phase: Phase, step: Step) -> Phase:
    """The phase after a step; an illegal one raises `Bug`."""
    try:
        return TRANSITIONS[phase][step]
    except KeyError:
        raise Bug(f"a session that is {phase.name} cannot take the step {step.name}") from None


def shown(phase: Phase, reason: Reason | None) -> Status:
    """The status that the API shows; a terminal one needs the reason."""
    if phase is not Phase.ENDED:
        return _SHOWN[phase]
    if reason is None:
        raise Bug("a session ended for no reason")
    return TERMINAL[reason]
