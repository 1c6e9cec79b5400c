import os
import re
from email.utils import formatdate
from urllib.parse import urljoin, urlsplit

import pytest
import trio

from daemon.clients.auth import Tokens
from tests.clients.room import Answers, handshake, open_room
from tests.support import descriptors


@pytest.fixture
async def room(tmp_path):
    with open_room(tmp_path, max_file=1 << 20) as opened:
        opened.workspace.write("index.html", b"<h1>home</h1>")
        opened.workspace.write("style.css", b"h1 {}")
        opened.workspace.write("menu/index.html", b"menu")
        opened.workspace.write("empty/file.txt", b"")
        yield opened


async def visit(room, target, method="GET", **headers):
    """A request by somebody who has the cookie."""
    with trio.fail_after(5):
        return await room.get(target, method, Cookie=f"footlight_s1={room.tokens.preview}", **headers)


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("a.html", "text/html; charset=utf-8"),
        ("a.css", "text/css; charset=utf-8"),
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.mjs", "text/javascript; charset=utf-8"),
        ("a.json", "application/json; charset=utf-8"),
        ("a.svg", "image/svg+xml; charset=utf-8"),
        ("a.txt", "text/plain; charset=utf-8"),
        ("a.webmanifest", "application/manifest+json; charset=utf-8"),
        ("a.png", "image/png"),
        ("A.JPG", "image/jpeg"),
        ("a.woff2", "font/woff2"),
        ("a.unknown", "application/octet-stream"),
        ("noending", "application/octet-stream"),
        ("a b ä.html", "text/html; charset=utf-8"),
    ],
)
async def test_a_file_is_served_with_its_type(room, name, content_type):
    room.workspace.write(name, b"content")
    from urllib.parse import quote

    answer = await visit(room, "/" + quote(name))
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, b"content", content_type)
    assert answer.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ("/", b"<h1>home</h1>"),
        ("/index.html", b"<h1>home</h1>"),
        ("/?a=b", b"<h1>home</h1>"),
        ("//style.css", b"h1 {}"),
        ("/./style.css", b"h1 {}"),
        ("/menu/", b"menu"),
        ("/menu//index.html", b"menu"),
        ("/menu%2Findex.html", b"menu"),
        ("/empty/file.txt", b""),
    ],
)
async def test_a_path_leads_to_its_file(room, target, body):
    answer = await visit(room, target)
    assert (answer.status, answer.body) == (200, body)


async def test_a_folder_without_its_slash_redirects_to_the_one_with_it(room):
    answer = await visit(room, "/menu")
    assert (answer.status, answer.headers["location"]) == (302, "/menu/")


@pytest.mark.parametrize("target", ["/missing", "/empty/", "/empty", "/index.html/", "/index.html/x", "/menu/missing"])
async def test_what_is_not_there_is_404(room, target):
    answer = await visit(room, target)
    assert (answer.status, answer.text) == (404, "no such file\n")


async def test_an_empty_workspace_says_that_there_is_no_page_yet(tmp_path):
    with open_room(tmp_path) as room:
        answer = await visit(room, "/")
    assert answer.status == 404
    assert "no page yet" in answer.text


async def test_a_large_file_is_read_whole_and_one_over_the_limit_refused(room):
    data = os.urandom(700_000)
    room.workspace.write("large.bin", data)
    assert (await visit(room, "/large.bin")).body == data
    (room.workspace.root / "huge.bin").write_bytes(bytes((1 << 20) + 1))
    assert (await visit(room, "/huge.bin")).status == 413


# --- conditional requests


async def test_an_unchanged_file_is_304_by_etag(room):
    etag = (await visit(room, "/style.css")).headers["etag"]
    for value in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        answer = await visit(room, "/style.css", If_None_Match=value)
        assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", etag)


@pytest.mark.parametrize("value", ['"other"', "", '"', "W/", "x" * 1000])
async def test_another_etag_gets_the_file(room, value):
    assert (await visit(room, "/style.css", If_None_Match=value)).status == 200


async def test_a_changed_file_has_another_etag(room):
    first = (await visit(room, "/style.css")).headers["etag"]
    room.workspace.write("style.css", b"h2 {}")
    answer = await visit(room, "/style.css", If_None_Match=first)
    assert (answer.status, answer.body) == (200, b"h2 {}")
    assert answer.headers["etag"] != first


async def test_an_unchanged_file_is_304_by_date(room):
    path = room.workspace.root / "style.css"
    os.utime(path, (1_000_000_000, 1_000_000_000))
    assert (await visit(room, "/style.css")).headers["last-modified"] == formatdate(1_000_000_000, usegmt=True)
    found = {}
    for at in (999_999_999, 1_000_000_000, 1_000_000_001):
        answer = await visit(room, "/style.css", If_Modified_Since=formatdate(at, usegmt=True))
        found[at] = answer.status
    assert found == {999_999_999: 200, 1_000_000_000: 304, 1_000_000_001: 304}


async def test_an_etag_counts_more_than_a_date(room):
    later = formatdate(4_000_000_000, usegmt=True)
    assert (await visit(room, "/style.css", If_None_Match='"other"', If_Modified_Since=later)).status == 200


@pytest.mark.parametrize(
    "date",
    [
        "",
        "yesterday",
        "Mon, 99 Foo 2020 99:99:99 GMT",
        "Thu, 01 Jan 99999 00:00:00 GMT",
        "0",
        "Thu, 01 Jan 0000 00:00:00 +9999",
        "Thu, 01 Jan 1970 00:00:00 -9999999999",
        ",",
        ": : :",
        "1 1 1 1:1:1:1:1",
        "\xff",
    ],
)
async def test_a_date_that_is_none_gets_the_file(room, date):
    assert (await visit(room, "/style.css", If_Modified_Since=date)).status == 200


async def test_head_gets_the_headers_and_no_body(room):
    got, headed = await visit(room, "/style.css"), await visit(room, "/style.css", "HEAD")
    assert (headed.status, headed.body) == (200, b"")
    assert headed.headers == got.headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "FOO"])
async def test_the_preview_is_read_only(room, method):
    answer = await visit(room, "/style.css", method)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


# --- who may see it


@pytest.mark.parametrize("cookie", [None, "", "footlight_s1=", "footlight_s1=wrong", "other=x"])
async def test_nobody_sees_anything_without_the_cookie(room, cookie):
    for target in ("/", "/style.css", "/missing", "/menu"):
        headers = {"Cookie": cookie} if cookie is not None else {}
        assert (await room.get(target, **headers)).status == 401


async def test_another_sessions_cookie_opens_nothing(room):
    secret = Tokens().preview
    assert (await room.get("/", Cookie=f"footlight_s1={secret}; footlight_s2={secret}")).status == 401
    assert (await room.get("/", Cookie=f"footlight_s2={room.tokens.preview}")).status == 401


@pytest.mark.parametrize("role", ["control", "watch"])
async def test_a_token_is_exchanged_for_a_cookie_once(room, role):
    answer = await room.get(f"/?token={getattr(room.tokens, role)}")
    assert (answer.status, answer.headers["location"], answer.body) == (302, "/", b"")
    assert answer.headers["cache-control"] == "no-store"
    pair, *attributes = answer.headers["set-cookie"].split("; ")
    assert attributes == ["Path=/", "HttpOnly", "SameSite=Lax"]
    assert (await room.get("/", Cookie=pair)).body == b"<h1>home</h1>"


async def test_the_cookie_is_secure_behind_https(room):
    room.port.preview.secure = True
    assert (await room.get(f"/?token={room.tokens.watch}")).headers["set-cookie"].endswith("; Secure")


@pytest.mark.parametrize("token", ["", "wrong", "%00", "%ff"])
async def test_a_wrong_token_opens_nothing_even_with_the_cookie(room, token):
    for answer in (await room.get(f"/?token={token}"), await visit(room, f"/?token={token}")):
        assert answer.status == 401
        assert "set-cookie" not in answer.headers


async def test_tokens_are_not_in_what_the_redirect_gives_back(room):
    answer = await room.get(f"/menu/?token={room.tokens.control}&a=b%26c&token2=x")
    assert answer.headers["location"] == "/menu/?a=b%26c&token2=x"
    assert not any(room.tokens.control in value for value in answer.headers.values())


@pytest.mark.parametrize(
    "path",
    [
        "//evil.example",
        "//evil.example/x",
        "///evil.example",
        "/\\evil.example",
        "/\\/evil.example",
        "\\\\evil.example",
        "//\\evil.example",
        "/%2Fevil.example",
        "/%5Cevil.example",
        "/.//evil.example",
        "/..//evil.example",
        "/x/..//evil.example",
        "http://evil.example/x",
        "https:evil.example",
        "javascript:alert(1)",
        "//evil.example%2f..",
        "//evil.example\\@room",
        "/@evil.example",
        "/:80",
    ],
)
async def test_the_redirect_stays_on_the_site(room, path):
    for answer in (await room.get(f"{path}?token={room.tokens.watch}"), await visit(room, path)):
        location = answer.headers.get("location", "/")
        assert re.match(r"/(?![/\\])", location)
        assert urlsplit(urljoin("http://room/a/b", location)).netloc == "room"


async def test_the_redirect_of_a_folder_stays_on_the_site(room):
    for name in ("\\evil.example", "evil.example"):
        room.workspace.write(f"{name}/index.html", b"x")
    for target in ("/%5Cevil.example", "//evil.example", "/%2F%2Fevil.example", "/%5C%5Cevil.example"):
        answer = await visit(room, target)
        assert re.match(r"/(?![/\\])", answer.headers.get("location", "/x"))


async def test_the_cookie_opens_nothing_but_the_preview(room):
    cookie = f"footlight_s1={room.tokens.preview}"
    async with room.connection() as stream:
        await stream.send_all(handshake("/ws", Cookie=cookie))
        assert (await Answers(stream).next()).status == 401
    async with room.connection() as stream:
        await stream.send_all(handshake(f"/ws?token={room.tokens.preview}"))
        assert (await Answers(stream).next()).status == 401
    assert (await visit(room, "/health")).body == b'{"status":"healthy"}'
    assert (await room.get(f"/?token={room.tokens.preview}")).status == 401


# --- nothing outside the folder


@pytest.fixture
async def traps(room):
    """Things within the workspace that lead out of it or are no files."""
    root = room.workspace.root
    (root.parent / "secret.txt").write_text("SECRET")
    (root.parent / "outside").mkdir()
    (root.parent / "outside" / "index.html").write_text("SECRET")
    (root / "link").symlink_to(root.parent / "secret.txt")
    (root / "relative").symlink_to("../secret.txt")
    (root / "folder").symlink_to(root.parent / "outside")
    (root / "passwd").symlink_to("/etc/passwd")
    (root / "self").symlink_to("self")
    (root / "dangling").symlink_to("nowhere")
    (root / "fd").symlink_to("/proc/self/fd")
    (root / "device").symlink_to("/dev/zero")
    os.mkfifo(root / "fifo")
    os.mkfifo(root / "menu" / "fifo")
    return room


TRAVERSALS = [
    "/../secret.txt",
    "/..",
    "/../",
    "/../../../../../../etc/passwd",
    "/%2e%2e/secret.txt",
    "/%2e%2e%2fsecret.txt",
    "/..%2fsecret.txt",
    "/%2e./secret.txt",
    "/.%2e%5csecret.txt",
    "/..%5csecret.txt",
    "/..\\secret.txt",
    "/%252e%252e/secret.txt",
    "/menu/../../secret.txt",
    "/menu/..%2f..%2fsecret.txt",
    "/....//secret.txt",
    "/..;/secret.txt",
    "/%c0%ae%c0%ae/secret.txt",
    "/%ff%fe/secret.txt",
    "/%ff",
    "/\xff",
    "//etc/passwd",
    "///etc/passwd",
    "/%2fetc/passwd",
    "/%2Fetc%2Fpasswd",
    "/etc/passwd",
    "/workspace/../secret.txt",
    "/workspace/index.html",
    "/index.html%00",
    "/index.html%00.txt",
    "/%00",
    "/\x00",
    "/" + "a" * 300,
    "/" + "a/" * 600 + "x",
    "/" + "../" * 600 + "etc/passwd",
    "/" + "%2e%2e%2f" * 100 + "etc/passwd",
    "/link",
    "/relative",
    "/folder",
    "/folder/",
    "/folder/index.html",
    "/passwd",
    "/self",
    "/dangling",
    "/fd",
    "/fd/0",
    "/device",
    "/fifo",
    "/fifo/",
    "/menu/fifo",
    "file:///etc/passwd",
    "/C:/secret.txt",
    "/con",
    "/~root",
    "/proc/self/environ",
]


@pytest.mark.parametrize("target", TRAVERSALS, ids=lambda target: repr(target[:40]))
async def test_nothing_outside_the_folder_is_served(traps, target):
    answer = await visit(traps, target)
    assert answer.status in {400, 404}, answer
    assert b"SECRET" not in answer.body
    assert b"root:" not in answer.body


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a device")
async def test_a_device_is_not_served(traps):
    try:
        os.mknod(traps.workspace.root / "zero", 0o020666, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("no devices in this container")
    assert (await visit(traps, "/zero")).status == 404


async def test_a_symlink_that_stays_inside_is_followed_only_where_the_kernel_vouches(traps):
    (traps.workspace.root / "inside").symlink_to("style.css")
    answer = await visit(traps, "/inside")
    assert (answer.status, answer.body) in {(200, b"h1 {}"), (404, b"no such file\n")}


async def test_serving_leaves_no_descriptor(traps):
    before = descriptors()
    for target in (*TRAVERSALS, "/", "/menu", "/style.css", "/missing"):
        await visit(traps, target)
    await visit(traps, "/style.css", If_None_Match="*")
    (traps.workspace.root / "huge.bin").write_bytes(bytes((1 << 20) + 1))
    await visit(traps, "/huge.bin")
    assert descriptors() == before


async def test_a_folder_that_became_a_file_is_404_below(room):
    room.workspace.write("page", b"x")
    assert (await visit(room, "/page/index.html")).status == 404
