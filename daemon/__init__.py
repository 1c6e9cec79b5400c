"""footlight: one live URL per AI agent session.

The map; imports point downwards only (held by tests/test_layout.py):

    cli.py                  the commands, thin
    main.py                 run_daemon(): the root nursery, signals, shutdown
    api/                    the HTTP API: Quart-Trio routes by noun on streams that we accept
    sessions/               open_session (the order), registry (one task a session), lifecycle (the table)
    agent/                  the turn loop on the anthropic SDK, its tools, the scripted model
    clients/                one session's port: WebSocket, health, preview
    journal/                the events of a session, on disk and live; SQLite for the rest
    workspace/              the one door beneath a session's folder
    serving.py services.py  the accept loop; tasks that outlive their body's cancellation
    config.py errors.py log.py
"""

__version__ = "0.1.0"
