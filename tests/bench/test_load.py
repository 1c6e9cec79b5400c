"""The load generator counts what was sent, however it is cut."""

import socket
import threading
import time

import pytest

from bench.load import Frames, Listeners
from daemon.journal.frames import PING, close_frame, frame

SIZES = [0, 1, 125, 126, 500, 65535, 65536, 70000]


@pytest.mark.parametrize("step", [1, 2, 3, 7, 499, 65536, 1 << 20])
def test_frames_are_counted_however_they_are_cut(step):
    stream = PING.join(frame(b"x" * size) for size in SIZES) + close_frame(1000, "over")
    frames = Frames()
    for at in range(0, len(stream), step):
        frames.feed(stream[at : at + step])
    assert frames.count == len(SIZES)


def test_frames_are_counted_when_their_last_byte_is_there():
    ready, frames = frame(b"x" * 500), Frames()
    frames.feed(ready * 3 + ready[:-1])
    assert frames.count == 3
    frames.feed(ready[-1:])
    assert frames.count == 4


def test_listeners_take_what_they_are_sent_and_read_its_delay():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        settled = threading.Event()
        server = threading.Thread(target=_serve, args=(listener, 3, 2, settled))
        server.start()
        with Listeners([(listener.getsockname()[1], "/")], 3) as listeners:
            listeners.settle()
            settled.set()
            taken = listeners.take(2)
        server.join(10)
        assert not server.is_alive()
    assert taken.frames == 6
    assert all(delay >= 5 for delay in taken.delays)
    assert len(taken.delays) >= 3
    assert taken.own_share > 0


def test_listeners_say_when_the_server_drops_them():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=_serve, args=(listener, 1, 1))
        server.start()
        with Listeners([(listener.getsockname()[1], "/")], 1) as listeners, pytest.raises(ConnectionError):
            listeners.take(2)
        server.join(10)


def _serve(listener, clients, events, go=None):
    """A greeting to each; when told to go on, events that are 5 ms old."""
    joined = []
    for _ in range(clients):
        client, _ = listener.accept()
        client.recv(4096)
        client.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + frame(b'{"event":"connected"}'))
        joined.append(client)
    assert go is None or go.wait(10)
    for client in joined:
        client.sendall(frame(b'{"text":"at %d xxx"}' % (time.perf_counter_ns() - 5_000_000)) * events)
    for client in joined:
        with client:
            assert go is None or client.recv(1) == b""  # it has left
