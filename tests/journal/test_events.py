"""The kinds of events: nothing but the contract's goes out."""

import re
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from daemon.errors import Bug
from daemon.journal.events import JOURNALED, LIVE_ONLY, _to_the_second, encode, utc_now

DATA = {"turn": 1, "block": 0, "text": "hé\n\x00\u2028"}


def test_event_has_the_contract_fields_in_order_when_journaled():
    event = msgspec.json.decode(encode("abc", "claude_text", DATA, 7))
    assert list(event) == ["session_id", "event", "timestamp", "data", "offset"]
    assert (event["session_id"], event["event"], event["data"], event["offset"]) == ("abc", "claude_text", DATA, 7)


def test_event_has_no_offset_when_live():
    event = msgspec.json.decode(encode("abc", "pong", {}, None))
    assert list(event) == ["session_id", "event", "timestamp", "data"]


@pytest.mark.parametrize("kind", JOURNALED)
def test_kind_is_refused_when_journaled_but_sent_live(kind):
    with pytest.raises(Bug, match="no such live event"):
        encode("abc", kind, dict.fromkeys(JOURNALED[kind], ""), None)


@pytest.mark.parametrize("kind", LIVE_ONLY)
def test_kind_is_refused_when_live_but_journaled(kind):
    with pytest.raises(Bug, match="no such journaled event"):
        encode("abc", kind, dict.fromkeys(LIVE_ONLY[kind], ""), 1)


@pytest.mark.parametrize(
    ("kind", "offset"), [*((kind, 1) for kind in JOURNALED), *((kind, None) for kind in LIVE_ONLY)]
)
def test_kind_takes_its_own_fields_and_no_others(kind, offset):
    fields = (JOURNALED if offset else LIVE_ONLY)[kind]
    assert msgspec.json.decode(encode("abc", kind, dict.fromkeys(fields, ""), offset))["data"] == dict.fromkeys(
        fields, ""
    )
    for wrong in (fields[1:], (*fields, "other"), fields[::-1]):
        if wrong == fields:
            continue
        with pytest.raises(Bug, match=kind):
            encode("abc", kind, dict.fromkeys(wrong, ""), offset)


@pytest.mark.parametrize("kind", ["", "claude_txt", "Connected"])
def test_unknown_kind_is_refused(kind):
    for offset in (1, None):
        with pytest.raises(Bug, match="no such"):
            encode("abc", kind, {}, offset)


def test_ack_names_what_it_answers_and_nothing_else():
    said = {"type": "prompt", "message_id": "m", "position": 1, "accepted": "queued", "tool_use_id": "t"}
    assert msgspec.json.decode(encode("abc", "ack", said, None))["data"] == said
    for wrong in ({"message_id": "m"}, {"type": "prompt", "token": "x"}):
        with pytest.raises(Bug, match="ack"):
            encode("abc", "ack", wrong, None)


def test_text_that_utf8_cannot_hold_is_refused():
    with pytest.raises(UnicodeEncodeError):
        encode("abc", "claude_text", {**DATA, "text": "\ud800"}, 1)


def test_time_is_rfc3339_with_milliseconds_and_now():
    before = datetime.now(UTC)
    shown = [utc_now() for _ in range(50)]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", text) for text in shown)
    times = [datetime.fromisoformat(text) for text in shown]
    assert times == sorted(times)
    assert before - timedelta(milliseconds=1) <= times[0] <= times[-1] <= datetime.now(UTC)


def test_time_is_not_the_one_of_the_second_before():
    assert [_to_the_second(second)[14:] for second in (59, 60, 60, 61, 59)] == [
        "00:59",
        "01:00",
        "01:00",
        "01:01",
        "00:59",
    ]
