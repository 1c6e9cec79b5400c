"""The conversation: kept as it is added, every tool call answered."""

from contextlib import closing

import pytest

from daemon.agent.conversation import Conversation, tool_result
from daemon.journal.store import Store


@pytest.fixture
def store(tmp_path):
    with closing(Store(tmp_path / "footlight.db")) as store:
        yield store


def call(name: str) -> dict[str, object]:
    return {"type": "tool_use", "id": name, "name": "read", "input": {}}


def text(words: str) -> dict[str, object]:
    return {"type": "text", "text": words}


def test_messages_are_kept_as_they_are_added(store):
    conversation = Conversation(store, "abc")
    conversation.add("user", [text("hello")])
    conversation.add("assistant", [text("hello yourself")])
    assert Conversation(store, "abc").messages == conversation.messages
    assert [message["role"] for message in conversation.messages] == ["user", "assistant"]
    assert Conversation(store, "another").messages == []


def test_what_a_summary_stands_for_is_told_no_more_but_kept(store):
    conversation = Conversation(store, "abc")
    summary = {"type": "compaction", "content": "They greeted."}
    for role, block in (("user", text("hello")), ("assistant", text("hello yourself")), ("user", text("go on"))):
        conversation.add(role, [block])
    conversation.add("assistant", [summary, text("done")])
    for told in (conversation.told, Conversation(store, "abc").told):
        assert told == [conversation.messages[0], conversation.messages[3]]
    assert len(Conversation(store, "abc").messages) == 4


def test_nothing_is_no_message(store):
    conversation = Conversation(store, "abc")
    conversation.add("assistant", [])
    assert conversation.messages == []
    assert Conversation(store, "abc").messages == []


def test_calls_of_the_last_message_are_unanswered(store):
    conversation = Conversation(store, "abc")
    assert conversation.unanswered() == []
    conversation.add("user", [text("do it")])
    assert conversation.unanswered() == []
    conversation.add("assistant", [text("yes"), call("a"), call("b")])
    assert [block["id"] for block in conversation.unanswered()] == ["a", "b"]


def test_answer_fills_in_what_was_not_done(store):
    conversation = Conversation(store, "abc")
    conversation.add("assistant", [call("a"), call("b")])
    conversation.answer([tool_result("a", "fine", is_error=False)], "not run")
    assert conversation.messages[-1] == {
        "role": "user",
        "content": [tool_result("a", "fine", is_error=False), tool_result("b", "not run", is_error=True)],
    }
    assert conversation.unanswered() == []


def test_answer_to_no_call_says_nothing(store):
    conversation = Conversation(store, "abc")
    conversation.add("assistant", [text("done")])
    conversation.answer([], "not run")
    assert len(conversation.messages) == 1
