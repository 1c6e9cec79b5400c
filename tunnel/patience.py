"""How long everything around a tunnel may take, in seconds."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Patience:
    """Deadlines and pauses; a call's own end comes a little before the one at which its agent is killed."""

    open: float = 30.0  # a session waits for its first URL
    restore: float = 60.0  # a lost URL may be away
    remove: float = 3.0  # a URL may take to go
    check: float = 10.0  # between two looks at an agent that says nothing
    stop: float = 2.0  # the agent may take to end
    start: float = 15.0  # an agent takes 0.3 s on a good network and up to 10 s on a bad one
    create: float = 20.0  # an endpoint; a request that ends earlier may still be carried out
    ask: float = 4.0  # the agent, for what it has open
    delete: float = 2.0  # is part of a session's end
    hang: float = 2.0  # a call may take longer than its own deadline
