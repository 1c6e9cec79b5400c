"""The accept loop, over real sockets."""

import errno
import gc
import os
import socket
import struct
import weakref
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from daemon.serving import Server, open_listeners, port_of
from tests.support import descriptors, steps_of

USER_TIMEOUT = 7.0


async def echo(stream):
    async for data in stream:
        await stream.send_all(data)


async def hold(stream):
    """A handler that only a cancellation or a closed stream ends."""
    async for _ in stream:
        pass


@asynccontextmanager
async def serving(handle, **options):
    """A server and a way to connect to it; leaving cancels it and waits for its end."""
    server = Server(handle, **{"max_connections": 10, "user_timeout": USER_TIMEOUT, **options})
    listeners = await open_listeners("127.0.0.1", 0, 10)
    port = port_of(listeners)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve, listeners)
            yield server, partial(trio.open_tcp_stream, "127.0.0.1", port)
            nursery.cancel_scope.cancel()


async def ask(stream, data=b"hello"):
    await stream.send_all(data)
    return await stream.receive_some(len(data))


async def closed_by_peer(stream):
    """Wait until the other end has closed."""
    try:
        return await stream.receive_some(1) == b""
    except trio.BrokenResourceError:
        return True


async def until(condition):
    with trio.fail_after(5):
        while not condition():
            await trio.sleep(0.001)


async def test_server_serves_connections_side_by_side():
    async with serving(echo) as (server, connect):
        async with await connect() as one, await connect() as two:
            assert await ask(two, b"two") == b"two"
            assert await ask(one, b"one") == b"one"
            assert server.connections == 2
        await until(lambda: server.connections == 0)


@pytest.mark.parametrize(
    "error",
    [ValueError("x"), OSError(5, "x"), ExceptionGroup("g", [KeyError(1), ValueError(2)]), trio.BrokenResourceError()],
    ids=repr,
)
async def test_an_error_ends_its_own_connection_only(error):
    async def handle(stream):
        if await stream.receive_some(5) == b"crash":
            raise error
        await stream.send_all(b"hello")
        await hold(stream)

    async with serving(handle) as (_, connect):
        async with await connect() as good, await connect() as bad:
            assert await ask(good) == b"hello"
            await bad.send_all(b"crash")
            assert await closed_by_peer(bad)
            async with await connect() as later:
                assert await ask(later) == b"hello"


async def test_an_error_in_a_handlers_own_nursery_is_contained():
    async def crash():
        raise RuntimeError

    async def handle(stream):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash)
            nursery.start_soon(hold, stream)

    async with serving(handle) as (_, connect):
        for _ in range(3):
            async with await connect() as stream:
                assert await closed_by_peer(stream)


async def test_a_peer_that_resets_at_once_is_contained():
    async with serving(echo) as (server, connect):
        for _ in range(20):
            stream = await connect()
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await trio.aclose_forcefully(stream)
        async with await connect() as stream:
            assert await ask(stream) == b"hello"
            await until(lambda: server.connections == 1)


async def test_a_handler_that_returns_closes_its_connection():
    async def greet(stream):
        await stream.send_all(b"bye")

    async with serving(greet) as (_, connect), await connect() as stream:
        assert await stream.receive_some(10) == b"bye"
        assert await closed_by_peer(stream)


async def test_connections_over_the_cap_are_closed_at_once():
    async with serving(echo, max_connections=2) as (server, connect):
        async with await connect() as one, await connect() as two:
            assert await ask(one) == await ask(two) == b"hello"
            async with await connect() as three:
                assert await closed_by_peer(three)
            assert (server.connections, server.refused) == (2, 1)
            assert await ask(one) == b"hello"


async def test_a_closed_connection_makes_room_under_the_cap():
    async with serving(echo, max_connections=1) as (server, connect):
        for _ in range(5):
            async with await connect() as stream:
                assert await ask(stream) == b"hello"
            await until(lambda: server.connections == 0)
        assert server.refused == 0


async def test_the_kernel_is_told_to_end_peers_that_take_nothing():
    found = []

    async def handle(stream):
        found.append(stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))

    async with serving(handle) as (_, connect), await connect() as stream:
        assert await closed_by_peer(stream)
    assert found == [USER_TIMEOUT * 1000]


async def test_drain_returns_when_the_last_connection_is_gone():
    async with serving(echo) as (server, connect):
        drained = []
        async with trio.open_nursery() as nursery:

            async def drain():
                await server.drain()
                drained.append(server.connections)

            async with await connect() as one:
                assert await ask(one) == b"hello"
                async with await connect() as two:
                    assert await ask(two) == b"hello"
                    nursery.start_soon(drain)
                    await trio.testing.wait_all_tasks_blocked()
                await until(lambda: server.connections == 1)
                await trio.testing.wait_all_tasks_blocked()
                assert drained == []
        assert drained == [0]


async def test_drain_returns_at_once_when_nobody_is_connected():
    server = Server(echo, max_connections=1, user_timeout=1)
    with trio.fail_after(1):
        await server.drain()


async def test_several_may_wait_for_the_drain():
    async with serving(echo) as (server, connect):
        async with trio.open_nursery() as nursery:
            async with await connect() as stream:
                assert await ask(stream) == b"hello"
                nursery.start_soon(server.drain)
                nursery.start_soon(server.drain)
                await trio.testing.wait_all_tasks_blocked()


class Stopping:
    """A server in a task of its own, to be cancelled while clients are connected."""

    def __init__(self, handle, **options):
        self.server = Server(handle, max_connections=10, user_timeout=USER_TIMEOUT, **options)
        self.scope = trio.CancelScope()
        self.stopped = trio.Event()
        self.port = 0

    async def run(self, task_status):
        with self.scope:
            listeners = await open_listeners("127.0.0.1", 0, 10)
            self.port = port_of(listeners)
            async with trio.open_nursery() as nursery:
                await nursery.start(self.server.serve, listeners)
                task_status.started()
        self.stopped.set()


async def test_a_cancelled_server_waits_its_grace_for_work_under_way():
    work_may_end = trio.Event()

    async def slow(stream):
        await stream.receive_some(5)
        await work_may_end.wait()
        await stream.send_all(b"done")

    stopping = Stopping(slow, grace=10)
    with trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            await nursery.start(stopping.run)
            async with await trio.open_tcp_stream("127.0.0.1", stopping.port) as stream:
                await stream.send_all(b"begin")
                await until(lambda: stopping.server.connections == 1)
                stopping.scope.cancel()
                await trio.testing.wait_all_tasks_blocked()
                assert not stopping.stopped.is_set()
                with pytest.raises(OSError, match="connect"):  # it does not accept any more
                    await trio.open_tcp_stream("127.0.0.1", stopping.port)
                work_may_end.set()
                assert await stream.receive_some(10) == b"done"
                await stopping.stopped.wait()


async def test_a_cancelled_server_closes_by_force_what_outlasts_its_grace():
    stopping = Stopping(hold, grace=0.05)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await nursery.start(stopping.run)
            streams = [await trio.open_tcp_stream("127.0.0.1", stopping.port) for _ in range(5)]
            await until(lambda: stopping.server.connections == 5)
            stopping.scope.cancel()
            for stream in streams:
                async with stream:
                    assert await closed_by_peer(stream)
            await stopping.stopped.wait()
    assert stopping.server.connections == 0


async def test_force_ends_a_handler_that_shields_its_send():
    """Hypercorn sends under a shield without a deadline; only a closed socket ends that."""

    async def stubborn(stream):
        with trio.CancelScope(shield=True):
            while True:
                await stream.send_all(bytes(1 << 16))

    stopping = Stopping(stubborn, grace=0.05)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await nursery.start(stopping.run)
            async with await trio.open_tcp_stream("127.0.0.1", stopping.port):
                await until(lambda: stopping.server.connections == 1)
                await trio.testing.wait_all_tasks_blocked()
                stopping.scope.cancel()
                await stopping.stopped.wait()


async def test_on_drain_is_called_once_when_cancelled_and_may_end_connections():
    idle, calls = [], []

    async def handle(stream):
        with trio.CancelScope() as scope:
            idle.append(scope)
            await hold(stream)

    async def on_drain():
        calls.append(len(idle))
        for scope in idle:
            scope.cancel()

    stopping = Stopping(handle, grace=10, on_drain=on_drain)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await nursery.start(stopping.run)
            async with await trio.open_tcp_stream("127.0.0.1", stopping.port) as stream:
                await until(lambda: len(idle) == 1)
                assert calls == []
                stopping.scope.cancel()
                assert await closed_by_peer(stream)
                await stopping.stopped.wait()
    assert calls == [1]


async def test_an_on_drain_that_hangs_ends_with_the_grace():
    stopping = Stopping(hold, grace=0.05, on_drain=trio.sleep_forever)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await nursery.start(stopping.run)
            stopping.scope.cancel()


async def test_no_descriptor_is_left_after_connections_of_every_kind():
    before = descriptors()

    async def handle(stream):
        if await stream.receive_some(1) == b"x":
            raise ValueError
        await hold(stream)

    async with serving(handle, max_connections=3) as (server, connect):
        streams = [await connect() for _ in range(6)]
        await until(lambda: server.connections + server.refused == 6)
        for stream, byte in zip(streams, b"xyzxyz", strict=True):
            try:
                await stream.send_all(bytes([byte]))
            except trio.BrokenResourceError:
                continue
        await until(lambda: server.connections <= 2)
    for stream in streams:
        await trio.aclose_forcefully(stream)
    assert descriptors() == before


async def test_no_descriptor_is_left_when_cancelled_at_any_step():
    before = descriptors()

    async def body():
        async with trio.open_nursery() as nursery:
            server = Server(echo, max_connections=2, user_timeout=1, grace=0.001)
            listeners = await open_listeners("127.0.0.1", 0, 1)
            await nursery.start(server.serve, listeners)
            stream = await trio.open_tcp_stream("127.0.0.1", port_of(listeners))
            async with stream:
                await ask(stream)
            nursery.cancel_scope.cancel()

    with trio.fail_after(20):
        steps = await steps_of(body)
        for at in range(1, steps + 1):
            await steps_of(body, at)
            assert descriptors() == before, f"cancelled at step {at} of {steps}"


async def test_listeners_of_a_name_share_one_free_port():
    listeners = await open_listeners("localhost", 0, 5)
    try:
        assert {listener.socket.getsockname()[1] for listener in listeners} == {port_of(listeners)}
        assert port_of(listeners) > 0
    finally:
        for listener in listeners:
            await listener.aclose()


async def test_listening_on_a_taken_port_is_an_os_error_and_leaves_nothing():
    listeners = await open_listeners("127.0.0.1", 0, 5)
    try:
        before = len(descriptors())
        with pytest.raises(OSError, match="in use"):
            await open_listeners("127.0.0.1", port_of(listeners), 5)
        assert len(descriptors()) == before
    finally:
        for listener in listeners:
            await listener.aclose()


async def test_every_listener_is_served_and_closed():
    server, before = Server(echo, max_connections=10, user_timeout=1), descriptors()
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            listeners = [(await open_listeners("127.0.0.1", 0, 10))[0] for _ in range(3)]
            await nursery.start(server.serve, listeners)
            ports = [port_of([listener]) for listener in listeners]
            for port in ports:
                async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                    assert await ask(stream) == b"hello"
            nursery.cancel_scope.cancel()
    assert descriptors() == before
    for port in ports:
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream("127.0.0.1", port)


class Failing:
    """A listener whose first `accept` fails."""

    def __init__(self, listener, number):
        self.socket = listener.socket
        self._listener = listener
        self._errors = [OSError(number, os.strerror(number))]

    async def accept(self):
        await trio.lowlevel.checkpoint()
        if self._errors:
            raise self._errors.pop()
        return await self._listener.accept()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_accepting_goes_on_when_there_was_no_descriptor_or_memory(number):
    server = Server(echo, max_connections=10, user_timeout=1)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            (listener,) = await open_listeners("127.0.0.1", 0, 10)
            await nursery.start(server.serve, [Failing(listener, number)])
            async with await trio.open_tcp_stream("127.0.0.1", port_of([listener])) as stream:
                assert await ask(stream) == b"hello"
            nursery.cancel_scope.cancel()


async def test_any_other_error_of_accepting_comes_out_and_closes_the_listener():
    before = descriptors()
    (listener,) = await open_listeners("127.0.0.1", 0, 10)
    with trio.fail_after(5), pytest.RaisesGroup(OSError):
        await Server(echo, max_connections=10, user_timeout=1).serve([Failing(listener, errno.EINVAL)])
    assert descriptors() == before


async def test_a_closed_connection_is_not_kept_until_the_next_one():
    async with serving(echo) as (server, connect):
        async with await connect() as stream:
            assert await ask(stream) == b"hello"
            kept = weakref.ref(next(iter(server._open)))
        await until(lambda: server.connections == 0)
        await trio.testing.wait_all_tasks_blocked()
        gc.collect()
        assert kept() is None
