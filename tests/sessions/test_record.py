import msgspec
import pytest

from daemon.sessions.lifecycle import Status
from daemon.sessions.record import Failure, Record, SessionView, Settings, Usage, view_of


def make_record(**fields):
    return Record(
        session_id="abc",
        created_at="2026-11-22T10:30:00.000Z",
        last_activity="2026-11-22T10:31:00.000Z",
        expires_at=None,
        settings=Settings(model="scripted"),
        **fields,
    )


def test_usage_sums_every_kind_of_token():
    usage = Usage(1, 2, 3, 4)
    usage.add(Usage(10, 20, 30, 40))
    usage.add(Usage())
    assert usage == Usage(11, 22, 33, 44)


def test_usage_of_two_records_is_not_shared():
    make_record().usage.add(Usage(1, 1, 1, 1))
    assert make_record().usage == Usage()


def test_record_comes_back_as_it_was_kept():
    record = make_record(
        status=Status.error,
        turn=3,
        offset=17,
        epoch="e",
        usage=Usage(1, 2, 3, 4),
        error=Failure("tunnel_limit", "no more tunnels: \N{WHITE CHESS KING}"),
    )
    record.settings = Settings(model="m", system="be brief", timeout=0.0, token_budget=5)
    assert Record.decode(record.encode()) == record


def test_record_of_an_earlier_version_is_filled_with_defaults():
    kept = msgspec.json.decode(make_record().encode())
    for name in ("usage", "error", "turn", "offset", "epoch"):
        del kept[name]
    kept["a_later_field"] = 1
    assert Record.decode(msgspec.json.encode(kept)) == make_record()


@pytest.mark.parametrize("status", [status for status in Status if not status.live])
def test_view_of_what_is_not_alive_has_no_url_and_nobody_in_it(status):
    record = make_record(status=status, turn=2, offset=9, epoch="e", error=Failure("code", "detail"))
    view = view_of(record)
    assert [view.websocket_url, view.watch_url, view.preview_url, view.health_url] == [None] * 4
    assert (view.queued_prompts, view.connected_clients) == (0, 0)
    assert (view.status, view.turn, view.offset, view.epoch, view.model) == (status, 2, 9, "e", "scripted")
    assert view.error == Failure("code", "detail")


def test_view_has_the_fields_of_the_contract_in_order():
    assert SessionView.__struct_fields__ == (
        "session_id",
        "status",
        "websocket_url",
        "watch_url",
        "preview_url",
        "health_url",
        "created_at",
        "last_activity",
        "expires_at",
        "turn",
        "queued_prompts",
        "connected_clients",
        "offset",
        "epoch",
        "model",
        "usage",
        "error",
    )
    assert Usage.__struct_fields__ == (
        "input_tokens",
        "output_tokens",
        "cache_read_input_tokens",
        "cache_creation_input_tokens",
    )
