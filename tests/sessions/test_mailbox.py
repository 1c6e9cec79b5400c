import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from daemon.errors import CallerError
from daemon.sessions.mailbox import Mailbox


async def test_prompts_come_out_in_the_order_they_went_in():
    mailbox = Mailbox(3)
    assert [mailbox.put(text, None)[1] for text in "abc"] == [1, 2, 3]
    assert [prompt.message for prompt in mailbox.waiting()] == ["a", "b", "c"]
    assert [(await mailbox.next()).message for _ in "abc"] == ["a", "b", "c"]
    assert len(mailbox) == 0


async def test_a_prompt_keeps_its_id_or_gets_one_of_its_own():
    mailbox = Mailbox(3)
    assert mailbox.put("a", "mine")[0].message_id == "mine"
    first, second = mailbox.put("a", None)[0].message_id, mailbox.put("a", None)[0].message_id
    assert first != second
    assert first.startswith("msg_")


async def test_a_full_mailbox_refuses_and_stays_as_it_was():
    mailbox = Mailbox(2)
    mailbox.put("a", None)
    mailbox.put("b", None)
    with pytest.raises(CallerError) as refused:
        mailbox.put("c", None)
    assert (refused.value.code, refused.value.status, refused.value.retry_after) == ("too_many_prompts", 429, 5)
    assert [prompt.message for prompt in mailbox.waiting()] == ["a", "b"]
    await mailbox.next()
    assert mailbox.put("c", None)[1] == 2


async def test_next_waits_for_a_prompt(autojump_clock):
    mailbox, got = Mailbox(2), []

    async def take() -> None:
        got.append((await mailbox.next()).message)

    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            await wait_all_tasks_blocked()
            assert got == []
            mailbox.put("a", None)
    assert got == ["a"]


async def test_next_always_gives_others_a_turn():
    mailbox = Mailbox(2)
    mailbox.put("a", None)
    with assert_checkpoints():
        await mailbox.next()


async def test_next_cancelled_has_taken_none(autojump_clock):
    mailbox = Mailbox(2)
    with trio.move_on_after(1) as waiting:
        await mailbox.next()
    assert waiting.cancelled_caught
    mailbox.put("a", None)
    with trio.CancelScope() as scope:
        scope.cancel()
        await mailbox.next()
    assert mailbox.current is None
    assert len(mailbox) == 1
    assert (await mailbox.next()).message == "a"


async def test_a_text_is_held_while_it_waits_and_while_it_is_worked_on():
    mailbox = Mailbox(2)
    assert not mailbox.holds("a")
    mailbox.put("a", None)
    assert mailbox.holds("a")
    assert not mailbox.holds("A")
    mailbox.current = await mailbox.next()
    assert mailbox.holds("a")
    mailbox.current = None
    assert not mailbox.holds("a")


async def test_waiting_is_a_copy():
    mailbox = Mailbox(2)
    mailbox.put("a", None)
    mailbox.waiting().clear()
    assert len(mailbox) == 1
