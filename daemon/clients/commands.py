"""What a client may send over the WebSocket, and who carries it out."""

from typing import Any, Protocol, get_args

import msgspec

from daemon.errors import invalid_request


class _Frame(msgspec.Struct, tag_field="type", tag=str.lower, forbid_unknown_fields=False):
    """A frame from a client."""


class Prompt(_Frame):
    """The next thing to work on."""

    message: str
    message_id: str | None = None


class Interrupt(_Frame):
    """End the current turn."""


class Approve(_Frame):
    """Let a tool call go on."""

    tool_use_id: str
    reason: str | None = None


class Deny(_Frame):
    """Do not."""

    tool_use_id: str
    reason: str | None = None


class Stop(_Frame):
    """End the session."""


class Ping(_Frame):
    """Are you there?"""


class _Verdict(msgspec.Struct):
    """A frame that answers a tool call by a word that is not known."""

    type: str
    tool_use_id: str
    reason: str | None = None


Command = Prompt | Interrupt | Approve | Deny | Stop | Ping
_decoder: msgspec.json.Decoder[Command] = msgspec.json.Decoder(Command)
_verdicts = msgspec.json.Decoder(_Verdict)
_KNOWN = {shape.__struct_config__.tag for shape in get_args(Command)}


class Commands(Protocol):
    """The session, as its clients see it. Calls are synchronous; `CallerError` refuses."""

    @property
    def status(self) -> str:
        """The status as the API shows it."""

    @property
    def queued_prompts(self) -> int:
        """How many prompts wait."""

    def prompt(self, message: str, message_id: str | None, *, same_text_counts: bool) -> dict[str, Any]:
        """Queue a prompt; what the acknowledgement says of it."""

    def interrupt(self) -> None:
        """End the current turn, if there is one."""

    def resolve(self, tool_use_id: str, *, approved: bool, client_id: int, reason: str | None) -> None:
        """Answer a tool call that waits for a person."""

    def stop(self) -> None:
        """End the session."""


def decode(message: str | bytes) -> Command:
    """A frame as a command; anything else is `invalid_request` with what is wrong.

    An unknown verdict on a tool call is a no: whoever sent it meant to answer, and only `approve` is a yes.
    """
    if isinstance(message, bytes):
        raise invalid_request("frames are text")
    try:
        return _decoder.decode(message)
    except msgspec.ValidationError as error:
        if (verdict := _unknown_verdict(message)) is not None:
            return verdict
        raise invalid_request(f"not a frame of this protocol: {error}") from None
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise invalid_request(f"not a frame of this protocol: {error}") from None


def _unknown_verdict(message: str) -> Deny | None:
    try:
        verdict = _verdicts.decode(message)
    except msgspec.ValidationError:
        return None
    if verdict.type in _KNOWN:
        return None
    return Deny(verdict.tool_use_id, verdict.reason or f"{verdict.type[:40]!r} is no verdict that is known")


def carry_out(command: Command, commands: Commands, client_id: int) -> dict[str, Any]:
    """Do it; the data of its `ack`."""
    match command:
        case Prompt(message, message_id):
            return {"type": "prompt", **commands.prompt(message, message_id, same_text_counts=False)}
        case Approve(tool_use_id, reason) | Deny(tool_use_id, reason):
            approved = isinstance(command, Approve)
            commands.resolve(tool_use_id, approved=approved, client_id=client_id, reason=reason)
            return {"type": "approve" if approved else "deny", "tool_use_id": tool_use_id}
        case Interrupt():
            commands.interrupt()
        case Stop():
            commands.stop()
    return {"type": type(command).__name__.lower()}
