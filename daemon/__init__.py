"""footlight: one live URL per AI agent session.

The map; imports point downwards only (held by tests/test_layout.py):

    cli.py                  the commands, thin
    demo.py terminal.py     one session shown from its first word to its site; what a person sees of events
    testing.py              a daemon inside a test suite
    main.py                 run_daemon(): the root nursery, signals, shutdown
    api/                    the HTTP API: Quart-Trio routes by noun on streams that we accept
    sessions/               opening (the order), registry (one task a session), lifecycle (the table)
    agent/                  the turn loop on the anthropic SDK, its tools, the scripted model
    clients/                one session's port: WebSocket, health, preview
    journal/                the events of a session, on disk and live; SQLite for the rest
    workspace/              the one door beneath a session's folder; the sandbox its commands run in
    serving.py services.py  the accept loop; tasks that outlive their body's cancellation
    occupancy.py awaited.py  who is inside, and waiting until nobody is; what tasks wait for
    config.py errors.py log.py  every setting and limit; whose fault it is; lines that users grep
    hiding.py               secrets out of what other processes can read
"""

__version__ = "0.1.0"
