import pytest

from daemon.clients.commands import Approve, Deny, Interrupt, Ping, Prompt, Stop, carry_out, decode
from daemon.errors import CallerError
from tests.clients.room import NotedCommands

VALID = [
    ('{"type":"prompt","message":"hi"}', Prompt("hi")),
    ('{"type":"prompt","message":"hi","message_id":"m1"}', Prompt("hi", "m1")),
    ('{"type":"prompt","message":"hi","message_id":null}', Prompt("hi")),
    ('{"message":"order does not matter","type":"prompt"}', Prompt("order does not matter")),
    ('{"type":"prompt","message":"\\ud83d\\ude00 ä"}', Prompt("😀 ä")),
    ('{"type":"interrupt"}', Interrupt()),
    ('{"type":"stop"}', Stop()),
    ('{"type":"ping"}', Ping()),
    (' {"type" : "ping"} \n', Ping()),
    ('{"type":"ping","unknown":[1,{}]}', Ping()),
    ('{"type":"approve","tool_use_id":"t1"}', Approve("t1")),
    ('{"type":"approve","tool_use_id":"t1","reason":"fine"}', Approve("t1", "fine")),
    ('{"type":"deny","tool_use_id":"t1","reason":"no"}', Deny("t1", "no")),
    ('{"type":"allow","tool_use_id":"t1"}', Deny("t1", "'allow' is no verdict that is known")),
    ('{"type":"APPROVE","tool_use_id":"t1","reason":"wait"}', Deny("t1", "wait")),
    ('{"type":"","tool_use_id":"t1","reason":null}', Deny("t1", "'' is no verdict that is known")),
]
INVALID = [
    "",
    " ",
    "hello",
    "null",
    "1",
    "NaN",
    '"ping"',
    "[]",
    "{}",
    '{"type":"ping"',
    '{"type":"ping"}{"type":"ping"}',
    "{'type':'ping'}",
    '{"type":"ping",}',
    '{"type":null}',
    '{"type":1}',
    '{"type":["ping"]}',
    '{"type":"PING"}',
    '{"type":"unknown"}',
    '{"type":""}',
    '{"kind":"ping"}',
    '{"type":"prompt"}',
    '{"type":"prompt","message":null}',
    '{"type":"prompt","message":1}',
    '{"type":"prompt","message":["hi"]}',
    '{"type":"prompt","message":{"a":1}}',
    '{"type":"prompt","message":"hi","message_id":1}',
    '{"type":"prompt","message":"hi","message_id":[]}',
    '{"type":"approve"}',
    '{"type":"approve","tool_use_id":1}',
    '{"type":"approve","tool_use_id":"t","reason":1}',
    '{"type":"deny"}',
    '{"type":"allow"}',
    '{"type":"allow","tool_use_id":1}',
    '{"type":null,"tool_use_id":"t"}',
    '{"tool_use_id":"t"}',
    '{"type":"prompt","tool_use_id":"t"}',
    '{"type":"deny","tool_use_id":null}',
    '{"type":"prompt","message":"\\ud800"}',
    '{"type":"prompt","message":"\\x"}',
    "[" * 10_000,
    '{"type":"ping","x":' + "[" * 10_000 + "]" * 10_000 + "}",
    '{"a":' * 10_000 + "1" + "}" * 10_000,
    '{"type":"ping"}\0',
    "\ud800",
    b'{"type":"ping"}',
    b"",
]


@pytest.mark.parametrize(("frame", "command"), VALID)
def test_a_valid_frame_is_its_command(frame, command):
    assert decode(frame) == command


@pytest.mark.parametrize("frame", INVALID, ids=lambda frame: repr(frame[:60]))
def test_anything_else_is_an_invalid_request(frame):
    with pytest.raises(CallerError) as raised:
        decode(frame)
    assert raised.value.code == "invalid_request"
    assert len(raised.value.detail) < 500


@pytest.mark.parametrize(
    ("command", "asked", "ack"),
    [
        (
            Prompt("hi", "m1"),
            ("prompt", "hi", "m1", False),
            {"type": "prompt", "accepted": "queued", "message_id": "m1", "position": 1},
        ),
        (Interrupt(), ("interrupt",), {"type": "interrupt"}),
        (Stop(), ("stop",), {"type": "stop"}),
        (Approve("t1", "yes"), ("resolve", "t1", True, 7, "yes"), {"type": "approve", "tool_use_id": "t1"}),
        (Deny("t1"), ("resolve", "t1", False, 7, None), {"type": "deny", "tool_use_id": "t1"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_command_is_carried_out_and_acknowledged(command, asked, ack):
    commands = NotedCommands()
    assert carry_out(command, commands, client_id=7) == ack
    assert commands.asked == [asked]


def test_a_refusal_of_the_session_comes_through():
    with pytest.raises(CallerError, match="no more"):
        carry_out(Prompt("refuse me"), NotedCommands(), client_id=1)
