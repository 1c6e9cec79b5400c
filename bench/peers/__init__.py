"""The servers that stand beside footlight in the tables. Each is a program of its own that one load generator drives.

It listens on a free port of 127.0.0.1, prints its doors as one line of JSON, `[[port, target], …]`, and serves WebSockets
there. Commands come on stdin, one a line; when the last event of one is published it prints `done`:

    publish EVENTS TIMES PAUSE   EVENTS events at once to all clients, that TIMES, every PAUSE seconds
    each TIMES PAUSE             to each client events of its own, as a session of its own has, every PAUSE seconds
    replay EVENTS                that many events to each client, as fast as it takes them

The end of stdin ends it. An event is 500 bytes of JSON that says when it was published (events.py); its CPU is read from outside.
"""
