import socket

import pytest
import trio
from trio.testing import (
    check_half_closeable_stream,
    check_two_way_stream,
    lockstep_stream_pair,
    memory_stream_pair,
    wait_all_tasks_blocked,
)

from daemon.clients.stream import ClientStream
from daemon.journal.frames import close_frame

BIG = bytes(range(256)) * 16 * 1024  # 4 MB: more than any pair of socket buffers takes


def never_closed():
    return False


async def tiny_socket_pair(send_deadline):
    """A client's stream and its peer, over TCP with buffers as small as the kernel makes them."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        theirs = trio.socket.socket()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        await theirs.connect(listener.getsockname())
        ours = trio.socket.from_stdlib_socket(listener.accept()[0])
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    return ClientStream(trio.SocketStream(ours), send_deadline=send_deadline), trio.SocketStream(theirs)


async def both_closed(*streams):
    for stream in streams:
        await trio.aclose_forcefully(stream)


async def test_client_stream_is_a_half_closeable_stream_in_memory():
    async def make():
        one, two = memory_stream_pair()
        return ClientStream(one, send_deadline=5), ClientStream(two, send_deadline=5)

    # Nothing clogged: two writers wait for each other here, where a plain stream raises BusyResourceError.
    with trio.fail_after(10):
        await check_half_closeable_stream(make, None)


async def test_client_stream_is_a_two_way_stream_over_sockets():
    async def make():
        one, two = trio.socket.socketpair()
        return (
            ClientStream(trio.SocketStream(one), send_deadline=5),
            ClientStream(trio.SocketStream(two), send_deadline=5),
        )

    with trio.fail_after(10):
        await check_two_way_stream(make, None)


async def test_put_back_bytes_come_first(autojump_clock):
    ours, theirs = memory_stream_pair()
    stream = ClientStream(ours, send_deadline=1)
    await theirs.send_all(b"later")
    stream.put_back(b"second ")
    stream.put_back(b"first ")
    assert await stream.receive_some() == b"first second "
    assert await stream.receive_some() == b"later"


async def test_put_back_bytes_are_given_in_pieces_as_asked():
    stream = ClientStream(memory_stream_pair()[0], send_deadline=1)
    stream.put_back(b"abcde")
    with trio.testing.assert_checkpoints():
        assert await stream.receive_some(2) == b"ab"
    assert [await stream.receive_some(2), await stream.receive_some(2)] == [b"cd", b"e"]


async def test_a_cancelled_receive_loses_no_byte_that_was_put_back():
    stream = ClientStream(memory_stream_pair()[0], send_deadline=1)
    stream.put_back(b"abc")
    with trio.CancelScope() as scope:
        scope.cancel()
        await stream.receive_some(1)
    assert await stream.receive_some() == b"abc"


async def test_writers_take_turns_in_the_order_they_came(autojump_clock):
    ours, theirs = lockstep_stream_pair()  # a write ends when all of it has been read
    stream = ClientStream(ours, send_deadline=100)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for number in range(6):
                write = stream.send_frames if number % 2 else None
                data = bytes([65 + number]) * 3
                if write:
                    nursery.start_soon(write, data, never_closed)
                else:
                    nursery.start_soon(stream.send_all, data)
                await wait_all_tasks_blocked()
            got = b""
            while len(got) < 18:
                got += await theirs.receive_some(2)
    assert got == b"AAABBBCCCDDDEEEFFF"


async def test_frames_are_not_sent_when_a_close_came_before_their_turn(autojump_clock):
    ours, theirs = lockstep_stream_pair()
    stream, closing, sent = ClientStream(ours, send_deadline=100), [], []

    async def frames():
        sent.append(await stream.send_frames(b"frames", lambda: closing))

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, b"close")
            await wait_all_tasks_blocked()
            nursery.start_soon(frames)
            await wait_all_tasks_blocked()
            closing.append(True)  # the closing handshake began while the frames waited
            assert await theirs.receive_some() == b"close"
            await wait_all_tasks_blocked()
            assert sent == [False]
            nursery.start_soon(stream.send_eof)
            assert await theirs.receive_some() == b""


async def test_a_write_without_progress_evicts_the_client_at_its_deadline(autojump_clock):
    ours, theirs = lockstep_stream_pair()
    stream = ClientStream(ours, send_deadline=10)
    begun = trio.current_time()
    with pytest.raises(trio.BrokenResourceError, match="takes nothing"):
        await stream.send_all(b"x")
    assert trio.current_time() - begun == 10
    assert stream.evicted
    with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
        await theirs.send_all(b"anybody there?")


async def test_eviction_ends_whoever_waits_to_write_at_once(autojump_clock):
    ours, _theirs = lockstep_stream_pair()
    stream, ended = ClientStream(ours, send_deadline=10), []

    async def write():
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"x")
        ended.append(trio.current_time())

    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(write)
    assert [at - begun for at in ended] == [10] * 4


async def test_a_client_that_takes_nothing_is_evicted_over_a_real_socket():
    stream, theirs = await tiny_socket_pair(send_deadline=0.05)
    with trio.fail_after(5):
        with pytest.raises(trio.BrokenResourceError, match="takes nothing"):
            await stream.send_all(BIG)
        assert stream.evicted
        with pytest.raises(trio.BrokenResourceError, match="cut short"):
            await stream.send_all(b"x")
        assert stream._stream.socket.fileno() == -1  # at once: nobody waits for a closing handshake
    await both_closed(stream, theirs)


async def test_the_deadline_is_renewed_with_each_bit_of_progress():
    deadline = 0.25
    stream, theirs = await tiny_socket_pair(send_deadline=deadline)
    data, begun = BIG[: 1 << 18], trio.current_time()
    got = 0
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, data)
            while got < len(data):
                # Slow, so that all of it takes longer than the deadline; some of it is taken well within each.
                if trio.current_time() - begun < deadline * 2:
                    await trio.sleep(deadline / 10)
                got += len(await theirs.receive_some(len(data) // 40))
    assert trio.current_time() - begun > deadline * 1.5
    assert not stream.evicted
    await both_closed(stream, theirs)


async def test_a_write_that_was_cut_short_is_never_followed_by_other_bytes():
    stream, theirs = await tiny_socket_pair(send_deadline=5)
    frame = b"A" * len(BIG)
    with trio.fail_after(10):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.send_all, frame)
                await wait_all_tasks_blocked()
                scope.cancel()
        for write in (stream.send_all(b"B"), stream.send_frames(b"B", never_closed)):
            with pytest.raises(trio.BrokenResourceError, match="cut short"):
                await write
        got = b""
        try:
            while data := await theirs.receive_some(65536):
                got += bytes(data)
        except trio.BrokenResourceError:
            pass
    assert 0 < len(got) < len(frame)
    assert set(got) == {ord("A")}
    assert not stream.evicted
    await both_closed(stream, theirs)


async def test_a_writer_behind_one_that_was_cut_short_writes_nothing(autojump_clock):
    ours, theirs = lockstep_stream_pair()
    stream, failed = ClientStream(ours, send_deadline=100), []

    async def second():
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_frames(b"B", never_closed)
        failed.append(True)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as writing:
                    writing.start_soon(stream.send_all, b"AAAA")
                    await wait_all_tasks_blocked()
                    nursery.start_soon(second)
                    await wait_all_tasks_blocked()
                    assert await theirs.receive_some(2) == b"AA"
                    scope.cancel()
        assert failed == [True]


async def test_a_cancellation_while_waiting_for_its_turn_breaks_nothing(autojump_clock):
    ours, theirs = lockstep_stream_pair()
    stream = ClientStream(ours, send_deadline=100)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, b"AA")
            await wait_all_tasks_blocked()
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as waiting:
                    waiting.start_soon(stream.send_all, b"BB")
                    await wait_all_tasks_blocked()
                    scope.cancel()
            assert await theirs.receive_some() == b"AA"
            nursery.start_soon(stream.send_all, b"CC")
            assert await theirs.receive_some() == b"CC"


async def test_a_peer_that_is_gone_breaks_the_stream_without_eviction():
    stream, theirs = await tiny_socket_pair(send_deadline=5)
    await trio.aclose_forcefully(theirs)
    with trio.fail_after(5):
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(BIG)
        assert not stream.evicted
    await both_closed(stream)


# --- writing without waiting

SOME = BIG[: 64 * 1024]  # more than the smallest buffers take


async def rest_from(stream, size):
    got = b""
    while len(got) < size:
        got += await stream.receive_some(size - len(got))
    return got


async def test_what_is_taken_without_waiting_is_followed_by_its_rest_whoever_writes_next():
    with trio.fail_after(10):
        for last in (ClientStream.settle, lambda stream: stream.send_all(b"last")):
            stream, theirs = await tiny_socket_pair(5)
            taken = stream.try_write(SOME)
            assert 0 < taken < len(SOME)
            assert stream.try_write(b"more") == 0  # half a frame is not followed by another one
            async with trio.open_nursery() as nursery:
                nursery.start_soon(last, stream)
                assert await rest_from(theirs, len(SOME)) == SOME
                if last is not ClientStream.settle:
                    assert await rest_from(theirs, 4) == b"last"
            assert stream.try_write(b"more") == 4
            assert await rest_from(theirs, 4) == b"more"
            await both_closed(stream, theirs)


async def test_nothing_is_taken_while_somebody_else_writes_or_the_client_takes_nothing():
    with trio.fail_after(10):
        stream, theirs = await tiny_socket_pair(5)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, SOME)
            await wait_all_tasks_blocked()
            assert stream.try_write(b"x") == 0
            assert await rest_from(theirs, len(SOME)) == SOME
        await stream.send_frames(b"x", never_closed)
        assert await rest_from(theirs, 1) == b"x"
        await both_closed(stream, theirs)


async def test_nothing_is_taken_by_a_stream_that_is_closed_broken_or_in_memory():
    with trio.fail_after(10):
        stream, theirs = await tiny_socket_pair(5)
        await trio.aclose_forcefully(stream)
        assert stream.try_write(b"x") == 0
        await both_closed(theirs)
        one, _ = memory_stream_pair()
        assert ClientStream(one, send_deadline=5).try_write(b"x") == 0


async def test_nothing_is_taken_after_a_close():
    with trio.fail_after(10):
        stream, theirs = await tiny_socket_pair(5)
        assert stream.try_write(b"x") == 1
        await stream.send_all(close_frame(1000, ""))
        assert stream.try_write(b"y") == 0
        assert await rest_from(theirs, 5) == b"x" + close_frame(1000, "")
        await both_closed(stream, theirs)


async def test_client_that_takes_nothing_of_the_rest_is_evicted(mock_clock):
    stream, theirs = await tiny_socket_pair(0.2)
    stream.try_write(SOME)
    mock_clock.rate = 10
    with pytest.raises(trio.BrokenResourceError, match="takes nothing"):
        await stream.settle()
    assert stream.evicted
    await both_closed(stream, theirs)
