"""What keeps open pages up to date: where the script goes, what it is answered, and what it may say."""

import time

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from daemon.clients.live import VERSION, injected
from daemon.clients.mounts import open_mounts
from daemon.testing import test_config as make_config
from tests.clients.room import head, open_listening_room, open_room
from tests.support import descriptors

SCRIPT = f'<script src="/s/1/.footlight/live.js?v={VERSION}" data-tag="t"></script>'
BROWSER = "text/html,application/xhtml+xml,*/*;q=0.8"


@pytest.fixture
async def room(tmp_path):
    with open_room(tmp_path, max_file=1 << 20, preview_wait=0.2) as opened:
        opened.workspace.write("index.html", b"<!doctype html><title>x</title>")
        opened.workspace.write("style.css", b"h1 {}")
        yield opened


async def visit(room, target, method="GET", **headers):
    with trio.fail_after(5):
        return await room.get(target, method, Cookie=f"footlight_s1={room.tokens.preview}", **headers)


# --- where the script goes: | marks the place


@pytest.mark.parametrize(
    "page",
    [
        "|",
        "|<h1>x</h1>",
        "|text",
        "<!doctype html>|<title>x</title>",
        "<!DOCTYPE html>\n<html>\n<head>|<title>x</title>",
        "\ufeff<!doctype html>|x",
        "<!-- a > b --><!doctype html>\n<!-- <head> -->\n|<title>x</title>",
        '<html lang="en" data-x="a > b"><head profile=\'>\'>|<base href="https://other.example/">',
        "<html>\n<!-- c -->\n<HEAD>|</head><body>",
        "<head>|</head>",
        "|<header>no head</header>",
        "<html>|<header>",
        "<!doctype html><html><!-- note -->|<body><head></head>",
        "<!doctype html>|<!-- never closed <head>",
        "|<!doctype html",
        '|<html lang="never closed><head>',
    ],
)
def test_script_goes_before_all_others_and_behind_the_doctype(page):
    before, after = page.encode().split(b"|")
    found = injected(before + after, "/s/1", "t")
    place = found.index(SCRIPT.encode())
    # Space and comments on the way may stand on either side of it.
    assert found[:place].rstrip() == before.rstrip()
    assert found.replace(SCRIPT.encode(), b"") == before + after


@pytest.mark.parametrize("unit", ["<!--", "<!-- -->", "<html ", '<html a="', "<head", "\n", "<!doctype ", "'\"", ">"])
def test_script_finds_its_place_in_no_time_whatever_the_page(unit):
    page = unit.encode() * 100_000
    began = time.perf_counter()
    for start in (b"", b"<html ", b"<!-- x --><!doctype html><html>"):
        injected(start + page, "", "t")
    assert time.perf_counter() - began < 1


# --- who gets it


@pytest.mark.parametrize(
    ("target", "accept", "has_it"),
    [
        ("/", BROWSER, True),
        ("/index.html", BROWSER, True),
        ("/", "TEXT/HTML", True),
        ("/", "*/*", False),
        ("/", "application/json", False),
        ("/style.css", BROWSER, False),
    ],
)
async def test_script_is_in_what_a_browser_is_shown_as_a_page(room, target, accept, has_it):
    answer = await visit(room, target, Accept=accept)
    assert (b"/.footlight/live.js" in answer.body) is has_it
    assert int(answer.headers["content-length"]) == len(answer.body)
    if not target.endswith(".css"):
        assert answer.headers["vary"] == "Accept"
    assert b"footlight" not in room.workspace.read("index.html")


async def test_page_with_and_without_it_have_validators_of_their_own(room):
    etags = {accept: (await visit(room, "/", Accept=accept)).headers["etag"] for accept in (BROWSER, "*/*")}
    for accept, etag in etags.items():
        for known in etags.values():
            answer = await visit(room, "/", Accept=accept, If_None_Match=known)
            assert answer.status == (304 if known == etag else 200)
    page = await visit(room, "/", Accept=BROWSER)
    asked = await visit(room, "/", "HEAD", Accept=BROWSER)
    assert (asked.headers["content-length"], asked.headers["etag"]) == (
        page.headers["content-length"],
        page.headers["etag"],
    )


async def test_script_is_served_and_kept_by_the_browser(room):
    answer = await visit(room, f"/.footlight/live.js?v={VERSION}")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/javascript; charset=utf-8")
    assert "max-age" in answer.headers["cache-control"]
    assert b"location.reload()" in answer.body


@pytest.mark.parametrize("target", ["/.footlight/live.js", "/.footlight/live", "/.footlight/error", "/.footlight/x"])
async def test_nothing_is_answered_without_the_cookie(room, target):
    for method in ("GET", "POST"):
        assert (await room.get(target, method)).status == 401
    assert room.workspace.visits.errors == []


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/.footlight/error"), ("POST", "/.footlight/live"), ("POST", "/.footlight/live.js"),
        ("GET", "/.footlight/"), ("GET", "/.footlight/../index.html"), ("GET", "/.footlight/live/x"),
    ],
)  # fmt: skip
async def test_nothing_else_is_below_the_reserved_path(room, method, target):
    assert (await visit(room, target, method)).status == 404


# --- has anything changed?


def said(answer):
    assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
    return msgspec.json.decode(answer.body)


async def test_page_learns_whether_its_own_file_is_still_what_it_was_sent(room):
    page = (await visit(room, "/", Accept=BROWSER)).text
    tag = page.partition('data-tag="')[2].partition('"')[0]
    for path in ("", "index.html", "%2Findex.html"):
        assert said(await visit(room, f"/.footlight/live?path={path}&tag={tag}")) == {"version": 0, "changed": False}
    room.workspace.write("index.html", b"other")
    for query in (f"path=&tag={tag}", f"path=gone.html&tag={tag}", "path=", "tag=x&path=../secret"):
        assert said(await visit(room, f"/.footlight/live?{query}"))["changed"] is True


async def test_page_hears_of_a_change_when_it_happens(room):
    answers = []

    async def ask() -> None:
        answers.append(said(await visit(room, "/.footlight/live?version=0")))

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            assert answers == []
            room.workspace.visits.changed()
    assert answers == [{"version": 1, "changed": True}]
    assert said(await visit(room, "/.footlight/live?version=0")) == {"version": 1, "changed": True}


@pytest.mark.parametrize("version", ["0", "", "-1", "x", "9" * 30])
async def test_page_is_answered_after_a_while_when_nothing_happens(room, version):
    answer = said(await visit(room, f"/.footlight/live?version={version}"))
    assert answer == {"version": 0, "changed": False}


async def test_more_pages_than_may_wait_are_refused_and_told_when_to_come_back(room):
    async with trio.open_nursery() as nursery:
        for _ in range(200):
            nursery.start_soon(room.workspace.visits.wait_change, 0)
        await wait_all_tasks_blocked()
        answer = await visit(room, "/.footlight/live?version=0")
        assert (answer.status, answer.headers["retry-after"]) == (429, "30")
        nursery.cancel_scope.cancel()


async def test_page_that_waits_is_gone_with_the_port(tmp_path):
    before = descriptors()
    with trio.fail_after(5):
        async with open_listening_room(tmp_path, preview_wait=60.0) as (room, _):
            stream = await trio.open_tcp_stream("127.0.0.1", room.port.number)
            cookie = f"footlight_s1={room.tokens.preview}"
            await stream.send_all(head("/.footlight/live?version=0", Cookie=cookie))
            while not room.workspace.visits.open:
                await trio.sleep(0.001)
        await stream.receive_some()
        await stream.aclose()
    assert descriptors() == before


async def test_page_that_waits_over_a_shared_listener_does_not_hold_up_the_end(tmp_path):
    with trio.fail_after(5):
        async with open_mounts(make_config(tmp_path), 0) as mounts:
            async with open_listening_room(tmp_path, preview_wait=60.0) as (room, _):
                with mounts.mounted("/s/1", room.port):
                    stream = await trio.open_tcp_stream("127.0.0.1", mounts.number)
                    cookie = f"footlight_s1={room.tokens.preview}"
                    await stream.send_all(head("/s/1/.footlight/live?version=0", Cookie=cookie))
                    while not room.workspace.visits.open:
                        await trio.sleep(0.001)
                    began = trio.current_time()
            assert trio.current_time() - began < 0.5  # what is closed by force takes a second
            await stream.aclose()


# --- what goes wrong in a page


def errors(room):
    chunk = room.journal.read(0)
    events = [msgspec.json.decode(payload) for payload in room.journal.payloads(0, chunk)] if chunk else []
    return [event["data"] for event in events if event["event"] == "preview_error"]


async def test_error_of_a_page_is_journaled_once(room):
    query = "path=menu%2Fa%2520b.html&message=x+is+not+a+function&source=app.js&line=3&column=5"
    for _ in range(3):
        assert (await visit(room, f"/.footlight/error?{query}", "POST")).status == 204
    assert errors(room) == [
        {"path": "/menu/a b.html", "message": "x is not a function", "source": "app.js", "line": 3, "column": 5}
    ]


@pytest.mark.parametrize(
    "query",
    ["message=m&line=x&column=-1", "message=" + "%F0%9F%98%80" * 900, "message=%ff%00%ed%a0%80&path=%25ff", "message=m&line=" + "9" * 99],
    ids=lambda query: query[:12],
)  # fmt: skip
async def test_error_said_in_any_way_is_one_that_can_be_kept(room, query):
    assert (await visit(room, f"/.footlight/error?{query}", "POST")).status == 204
    (error,) = errors(room)
    assert len(error["message"]) <= 500
    assert 0 <= error["line"] <= 1 << 31


@pytest.mark.parametrize("query", ["", "message=", "message=%20%0a", "path=index.html&line=3"])
async def test_error_that_says_nothing_is_none(room, query):
    assert (await visit(room, f"/.footlight/error?{query}", "POST")).status == 400
    assert errors(room) == []


async def test_flood_of_errors_does_not_fill_the_journal(room):
    for number in range(300):
        assert (await visit(room, f"/.footlight/error?message={number}", "POST")).status == 204
        if number % 10 == 9:
            room.workspace.visits.changed()
    assert len(errors(room)) == 200


async def test_error_that_comes_after_the_end_is_dropped(room):
    room.journal.end()
    assert (await visit(room, "/.footlight/error?message=late", "POST")).status == 204
