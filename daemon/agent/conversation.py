"""What the model is told: the messages of a session in the Messages API's form, kept in the store as they are added."""

from typing import Any

from daemon.agent.compaction import compacted, is_summary, since_summary
from daemon.journal.store import Store

_Block = dict[str, Any]


class Conversation:
    """One session's messages."""

    def __init__(self, store: Store, session_id: str) -> None:
        self.messages: list[dict[str, Any]] = store.conversation(session_id)
        self.told = since_summary([*self.messages])  # what the model is told of them
        self._store = store
        self._session_id = session_id

    def add(self, role: str, content: list[_Block]) -> None:
        """Say something; nothing is no message."""
        if content:
            self._store.add_message(self._session_id, len(self.messages), {"role": role, "content": content})
            self.messages.append({"role": role, "content": content})
            self.told.append(self.messages[-1])
            if any(map(is_summary, content)):
                self.told = since_summary(self.told)

    def compact(self, share: float) -> bool:
        """Tell the model that share less from now on; whether anything could be left out. What is kept stays whole."""
        shorter = compacted(self.told, share)
        self.told = shorter or self.told
        return shorter is not None

    def unanswered(self) -> list[_Block]:
        """The tool calls of the last message, which must be answered before anything else is said."""
        if not self.messages or self.messages[-1]["role"] != "assistant":
            return []
        return [block for block in self.messages[-1]["content"] if block["type"] == "tool_use"]

    def answer(self, done: list[_Block], otherwise: str) -> None:
        """Answer the last message's tool calls: with what was done, the rest with an error text."""
        answered = {block["tool_use_id"] for block in done}
        rest = [
            tool_result(call["id"], otherwise, is_error=True)
            for call in self.unanswered()
            if call["id"] not in answered
        ]
        self.add("user", done + rest)


def tool_result(tool_use_id: str, text: str, *, is_error: bool) -> _Block:
    """The answer to one tool call."""
    return {"type": "tool_result", "tool_use_id": tool_use_id, "content": text, "is_error": is_error}
