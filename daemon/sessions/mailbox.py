"""The prompts of a session that wait for their turn, and the one that has it; bounded, and without any waiting but `next`."""

import secrets
from dataclasses import dataclass

import trio

from daemon.awaited import Again
from daemon.config import Config
from daemon.errors import CallerError, invalid_request

_MAX_MESSAGE_ID = 128


@dataclass(frozen=True)
class Prompt:
    """What a person asked for."""

    message: str
    message_id: str


def check_prompt(message: str, message_id: str | None, config: Config) -> None:
    """Refuse what cannot be a prompt."""
    if not message.strip() or len(message) > config.max_message:
        raise invalid_request(f"a message has 1 to {config.max_message} characters and is not blank")
    if message_id is not None and not 0 < len(message_id) <= _MAX_MESSAGE_ID:
        raise invalid_request(f"a message_id has 1 to {_MAX_MESSAGE_ID} characters")
    try:
        (message + (message_id or "")).encode()
    except UnicodeEncodeError:
        raise invalid_request("a message is text that UTF-8 can hold") from None


class Mailbox:
    """One session's prompts. Putting is synchronous, so that a request's answer is exact."""

    def __init__(self, limit: int) -> None:
        self.current: Prompt | None = None  # being worked on
        self._limit = limit
        self._waiting: list[Prompt] = []  # a few; an empty deque takes as much memory as ten prompts
        self._arrived = Again()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, message: str, message_id: str | None) -> tuple[Prompt, int]:
        """Queue a prompt; its place in the queue, counted from 1."""
        if len(self._waiting) >= self._limit:
            raise CallerError(
                "too_many_prompts", 429, f"{self._limit} prompts wait in this session already", retry_after=5
            )
        prompt = Prompt(message, message_id or f"msg_{secrets.token_hex(8)}")
        self._waiting.append(prompt)
        self._arrived.tell()
        return prompt, len(self._waiting)

    def waiting(self) -> list[Prompt]:
        """The queue, the next one first."""
        return list(self._waiting)

    def holds(self, message: str) -> bool:
        """Whether this text waits or is being worked on."""
        current = [self.current] if self.current else []
        return any(prompt.message == message for prompt in (*current, *self._waiting))

    async def next(self) -> Prompt:
        """Take the next prompt, which becomes the current one. Cancelled, it has taken none."""
        await trio.lowlevel.checkpoint()
        while not self._waiting:
            await self._arrived.wait()
        self.current = self._waiting.pop(0)
        return self.current
