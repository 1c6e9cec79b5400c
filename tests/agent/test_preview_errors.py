"""What the agent hears of its preview's errors."""

import trio
from trio.testing import wait_all_tasks_blocked

from daemon.agent.preview_errors import report
from daemon.workspace.visits import PageError, Visits


async def test_without_anybody_looking_nothing_is_known(autojump_clock):
    visits = Visits()
    visits.changed()
    began = trio.current_time()
    assert "Nobody has the preview open" in await report(visits, 2.0)
    assert trio.current_time() == began


async def test_pages_are_given_time_to_reload_after_a_change(autojump_clock):
    visits = Visits()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(visits.wait_change, 0)
        await wait_all_tasks_blocked()
        visits.changed()
        await trio.sleep(0.5)

        async def page_reloads() -> None:
            await trio.sleep(1)
            visits.note(PageError("/a.html", "x is\nnot  a function", "app.js", 3, 5))

        nursery.start_soon(page_reloads)
        began = trio.current_time()
        said = await report(visits, 2.0)
        assert trio.current_time() == began + 1.5
    assert said.splitlines()[1:] == ["- /a.html: x is not a function (app.js:3:5)"]
    assert "no instructions" in said


async def test_open_page_without_errors_is_said_to_have_none(autojump_clock):
    visits = Visits()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(visits.wait_change, 0)
        await wait_all_tasks_blocked()
        assert "has met no error" in await report(visits, 2.0)
        nursery.cancel_scope.cancel()


async def test_error_of_a_page_that_is_closed_again_is_still_known(autojump_clock):
    visits = Visits()
    visits.note(PageError("/", "oops"))
    assert (await report(visits, 2.0)).endswith("- /: oops")
