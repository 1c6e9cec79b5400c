from contextvars import ContextVar

import pytest
import trio

from daemon.services import open_services
from tests.support import steps_of


class Boom(Exception):
    pass


async def noting(record, name):
    """A task that writes down when it is cancelled."""
    record.append(f"{name} begins")
    try:
        await trio.sleep_forever()
    finally:
        record.append(f"{name} ends")


async def test_services_are_cancelled_after_the_body_when_the_body_is_cancelled(autojump_clock):
    record = []
    with trio.move_on_after(1) as scope:
        async with open_services() as services:
            services.start_soon(noting, record, "service")
            try:
                await trio.sleep_forever()
            finally:
                record.append(f"body cancelled at {trio.current_time():g}")
                with trio.move_on_after(2, shield=True):
                    await trio.sleep_forever()
                record.append(f"body left at {trio.current_time():g}")
    assert scope.cancelled_caught
    start = trio.current_time() - 3
    assert record == [
        "service begins",
        f"body cancelled at {start + 1:g}",
        f"body left at {start + 3:g}",
        "service ends",
    ]


async def test_a_service_still_works_while_the_cancelled_body_leaves(autojump_clock):
    answers = []

    async def answer(requests, task_status):
        task_status.started()
        async for number in requests:
            await trio.sleep(0.1)  # a checkpoint that a cancellation would reach
            answers.append(number)

    with trio.CancelScope() as outside:
        async with open_services() as services:
            send, receive = trio.open_memory_channel(0)
            await services.start(answer, receive)
            outside.cancel()
            try:
                await trio.sleep_forever()
            finally:
                with trio.fail_after(5) as scope:
                    scope.shield = True
                    await send.send(1)
                    await send.send(2)
                    await trio.sleep(1)
    assert answers == [1, 2]


async def test_services_end_when_the_body_leaves_by_itself():
    record = []
    with trio.fail_after(2):
        async with open_services() as services:
            services.start_soon(noting, record, "service")
            await trio.testing.wait_all_tasks_blocked()
            record.append("body leaves")
    assert record == ["service begins", "body leaves", "service ends"]


async def test_all_services_end_when_the_body_leaves():
    record = []
    with trio.fail_after(2):
        async with open_services() as services:
            for name in "abc":
                services.start_soon(noting, record, name)
            await trio.testing.wait_all_tasks_blocked()
    assert sorted(record[3:]) == ["a ends", "b ends", "c ends"]


async def test_a_crash_of_a_service_cancels_the_body():
    record = []

    async def crash():
        raise Boom

    with trio.fail_after(2), pytest.RaisesGroup(Boom):
        async with open_services() as services:
            services.start_soon(noting, record, "other")
            await trio.testing.wait_all_tasks_blocked()
            services.start_soon(crash)
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                record.append("body cancelled")
                raise
    assert record == ["other begins", "body cancelled", "other ends"]


async def test_an_error_of_the_body_ends_the_services_and_comes_out():
    record = []
    with trio.fail_after(2), pytest.RaisesGroup(Boom):
        async with open_services() as services:
            services.start_soon(noting, record, "service")
            await trio.testing.wait_all_tasks_blocked()
            raise Boom
    assert record == ["service begins", "service ends"]


async def test_errors_of_body_and_service_both_come_out():
    async def crash_at_the_end():
        try:
            await trio.sleep_forever()
        finally:
            raise KeyError

    with trio.fail_after(2), pytest.RaisesGroup(Boom, KeyError):
        async with open_services() as services:
            services.start_soon(crash_at_the_end)
            await trio.testing.wait_all_tasks_blocked()
            raise Boom


async def test_start_gives_what_the_service_gave():
    async def serve(number, *, task_status):
        task_status.started(number + 1)
        await trio.sleep_forever()

    with trio.fail_after(2):
        async with open_services() as services:
            assert await services.start(serve, 41) == 42


async def test_start_raises_what_the_service_raised_before_it_was_ready():
    async def serve(*, task_status):
        await trio.lowlevel.checkpoint()
        raise Boom

    with trio.fail_after(2):
        async with open_services() as services:
            with pytest.raises(Boom):
                await services.start(serve)


async def test_a_service_that_is_starting_does_not_hold_up_a_cancellation(autojump_clock):
    """Until it is ready nobody can need it, so the cancellation of the body must not wait for it."""

    async def never_ready(*, task_status):
        await trio.sleep_forever()

    begun = trio.current_time()
    with trio.move_on_after(1):
        async with open_services() as services:
            await services.start(never_ready)
    assert trio.current_time() - begun == 1


async def test_a_service_that_is_starting_is_cancelled_when_another_crashes(autojump_clock):
    async def never_ready(*, task_status):
        await trio.sleep_forever()

    async def crash():
        await trio.sleep(1)
        raise Boom

    with trio.fail_after(60), pytest.RaisesGroup(Boom):
        async with open_services() as services:
            services.start_soon(crash)
            await services.start(never_ready)


async def test_a_service_begun_while_the_body_leaves_is_cancelled_at_once():
    record = []
    with trio.fail_after(2):
        async with open_services() as services:

            async def late_starter():
                try:
                    await trio.sleep_forever()
                finally:
                    services.start_soon(noting, record, "late")

            services.start_soon(late_starter)
            await trio.testing.wait_all_tasks_blocked()
    assert record == ["late begins", "late ends"]


async def test_a_finished_service_leaves_nothing_behind():
    async def nothing():
        pass

    with trio.fail_after(2):
        async with open_services() as services:
            for _ in range(10):
                services.start_soon(nothing)
            await trio.testing.wait_all_tasks_blocked()
            assert services._scopes == set()


async def test_nothing_is_left_when_cancelled_at_any_step():
    running = 0

    async def serve(*, task_status):
        nonlocal running
        running += 1
        try:
            await trio.lowlevel.checkpoint()
            task_status.started()
            await trio.sleep_forever()
        finally:
            running -= 1

    async def body():
        async with open_services() as services:
            await services.start(serve)
            await services.start(serve)
            await trio.lowlevel.checkpoint()

    with trio.fail_after(5):
        steps = await steps_of(body)
        assert steps > 3
        for at in range(1, steps + 1):
            await steps_of(body, at)
            assert running == 0


async def test_a_service_does_not_keep_what_its_starter_had_in_its_context():
    """A session is asked for by a request and outlives it; the request must not live on in the session's context."""
    found, asked = [], ContextVar("asked", default=None)

    async def serve():
        found.append(asked.get())

    async def request(services):
        asked.set("a request")
        services.start_soon(serve)

    with trio.fail_after(2):
        asked.set("the opener's")
        async with open_services() as services, trio.open_nursery() as nursery:
            nursery.start_soon(request, services)
            await trio.testing.wait_all_tasks_blocked()
            await request(services)
            await trio.testing.wait_all_tasks_blocked()
    assert found == ["the opener's", "the opener's"]
