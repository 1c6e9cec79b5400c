"""The workspace over the API: whatever the agent has put there, only its regular files come out, and never as a page."""

import io
import os
import resource
import threading
import zipfile
from pathlib import Path
from urllib.parse import quote

import pytest
import trio

from daemon.testing import open_test_daemon
from daemon.workspace.files import MAX_FILES
from tests.api.calls import assert_problem, check_schema, ended_session, head, holding, port_of, read_until
from tests.support import api, descriptors

PAGE = b"<script>fetch('/api/sessions')</script>"


def workspace_of(daemon, session_id="s") -> Path:
    return daemon.registry.config.session_dir(session_id) / "workspace"


@pytest.fixture
async def client(daemon):
    """A caller, and an ended session `s` with some files."""
    async with api(daemon.url) as client:
        await ended_session(daemon, client, "s")
        root = workspace_of(daemon)
        (root / "menu").mkdir()
        (root / "index.html").write_bytes(PAGE)
        (root / "menu" / "ü b.css").write_bytes(b"a {}")
        (root.parent / "secret").write_text("secret")
        yield client


async def test_files_are_listed_by_path_with_what_is_known_of_them(client):
    listed = (await client.get("/api/sessions/s/files")).json()
    assert [(file["path"], file["size"], file["type"]) for file in listed["files"]] == [
        ("index.html", len(PAGE), "text/html; charset=utf-8"),
        ("menu/ü b.css", 4, "text/css; charset=utf-8"),
    ]
    assert listed["truncated"] is False
    document = (await client.get("/openapi.json")).json()
    check_schema(listed, {"$ref": "#/components/schemas/FileList"}, document)


async def test_list_that_is_not_whole_says_so(client, daemon):
    root = workspace_of(daemon)
    for number in range(MAX_FILES):
        os.close(os.open(root / str(number), os.O_CREAT | os.O_WRONLY))
    listed = (await client.get("/api/sessions/s/files")).json()
    assert (len(listed["files"]), listed["truncated"]) == (MAX_FILES, True)
    assert_problem(await client.get("/api/sessions/s/archive"), 413, "payload_too_large")


@pytest.mark.parametrize("path", ["index.html", "menu/ü b.css"])
async def test_file_comes_as_it_is_and_to_be_saved(client, daemon, path):
    response = await client.get(f"/api/sessions/s/files/{quote(path)}")
    assert response.status_code == 200
    assert response.content == (workspace_of(daemon) / path).read_bytes()
    name = quote(path.rpartition("/")[2])
    assert response.headers["Content-Disposition"] == f"attachment; filename*=UTF-8''{name}"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert int(response.headers["Content-Length"]) == len(response.content)


ODD = ["a\nb", "end\n", "\nstart", "d\n/e\n", "a\rb", "\x01\x1f\x7f", "\u2028x", "a%0Ab", "q?x#y", " sp ace "]


async def test_file_whatever_its_name_is_served_by_the_path_that_the_list_has(client, daemon):
    root = workspace_of(daemon)
    for name in ODD:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(name)
    (root / os.fsdecode(b"not\xffutf-8")).write_text("in no list, since it could not say its name")
    listed = [file["path"] for file in (await client.get("/api/sessions/s/files")).json()["files"]]
    assert sorted(listed) == sorted([*ODD, "index.html", "menu/ü b.css"])
    for name in ODD:
        response = await client.get(f"/api/sessions/s/files/{quote(name)}")
        assert (response.status_code, response.text) == (200, name)
    assert_problem(await client.get("/api/sessions/s/files/not%FFutf-8"), 404, "not_found")
    archive = zipfile.ZipFile(io.BytesIO((await client.get("/api/sessions/s/archive")).content))
    assert {archive.read(name).decode() for name in archive.namelist()} >= {*ODD}
    assert len(archive.namelist()) == len(listed)


async def test_file_that_the_caller_has_is_not_sent_again(client, daemon):
    first = await client.get("/api/sessions/s/files/index.html")
    for name, value in {"If-None-Match": "ETag", "If-Modified-Since": "Last-Modified"}.items():
        again = await client.get("/api/sessions/s/files/index.html", headers={name: first.headers[value]})
        assert (again.status_code, again.content) == (304, b"")
    (workspace_of(daemon) / "index.html").write_bytes(b"new")
    changed = await client.get("/api/sessions/s/files/index.html", headers={"If-None-Match": first.headers["ETag"]})
    assert (changed.status_code, changed.content) == (200, b"new")


async def test_head_has_the_headers_alone(client):
    before = descriptors()
    response = await client.head("/api/sessions/s/files/index.html")
    assert (response.status_code, response.headers["Content-Length"], response.content) == (200, str(len(PAGE)), b"")
    response = await client.head("/api/sessions/s/archive")
    assert (response.status_code, response.headers["Content-Type"]) == (200, "application/zip")
    assert descriptors() == before


async def test_archive_holds_every_file(client):
    response = await client.get("/api/sessions/s/archive")
    assert (response.status_code, response.headers["Content-Type"]) == (200, "application/zip")
    assert response.headers["Content-Disposition"] == 'attachment; filename="s.zip"'
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == ["index.html", "menu/ü b.css"]


async def test_session_that_has_made_nothing_has_no_files(client):
    await client.post("/api/chat", json={"message": "go", "session_id": "new"})
    assert (await client.get("/api/sessions/new/files")).json() == {"files": [], "truncated": False}
    archive = await client.get("/api/sessions/new/archive")
    assert zipfile.ZipFile(io.BytesIO(archive.content)).namelist() == []
    assert_problem(await client.get("/api/sessions/new/files/index.html"), 404, "not_found")


async def test_live_session_shows_what_its_agent_writes(daemon):
    async with api(daemon.url) as client:
        await client.post("/api/chat", json={"message": "hold", "session_id": "live"})
        await client.get("/api/sessions/live?wait=10")
        (workspace_of(daemon, "live") / "a.txt").write_text("a")
        assert (await client.get("/api/sessions/live/files/a.txt")).text == "a"


@pytest.mark.parametrize("call", ["files", "files/index.html", "archive"])
async def test_unknown_session_has_no_files(client, call):
    assert_problem(await client.get(f"/api/sessions/nope/{call}"), 404, "session_not_found")
    await client.delete("/api/sessions/s?purge=true")
    assert_problem(await client.get(f"/api/sessions/s/{call}"), 404, "session_not_found")


# --- what is not a file of the workspace

OUTSIDE = [
    "../secret", "..%2fsecret", "%2e%2e/secret", "%2e%2e%2fsecret", "menu/../../secret", "./../secret", "%2fetc/passwd",
    "..", "%2e%2e", "menu/%2e%2e/%2e%2e/secret", "..%5csecret", "%00", "index.html%00.css", "a%0d%0aX:%20y", "%ff%fe",
    "%252e%252e/secret", "proc/self/root/etc/passwd", "%2fproc/self/root", "x" * 300, "a/" * 400 + "b", "menu", "menu/",
    "missing", "index.html/", "index.html/x", ".footlight-0123", "%ed%a0%80",
]  # fmt: skip


@pytest.mark.parametrize("path", OUTSIDE)
async def test_path_that_is_no_file_beneath_the_workspace_is_404(client, daemon, path):
    async with await trio.open_tcp_stream("127.0.0.1", port_of(daemon)) as raw:  # a client library would tidy it up
        await raw.send_all(head("GET", f"/api/sessions/s/files/{path}", "Connection: close"))
        answer = await read_until(raw, b"\0nothing\0")
    if path == "index.html/":  # a slash at the end is tidied up by the door
        assert b" 200 " in answer.partition(b"\r\n")[0]
    else:
        assert b" 404 " in answer.partition(b"\r\n")[0]
        assert b"secret" not in answer
        assert b"application/problem+json" in answer


async def test_links_and_what_is_no_regular_file_are_not_served(client, daemon):
    root = workspace_of(daemon)
    (root / "out").symlink_to("../secret")
    (root / "absolute").symlink_to("/etc/passwd")
    (root / "folder").symlink_to("..")
    (root / "loop").symlink_to("loop")
    (root / "proc").symlink_to("/proc/self/environ")
    os.mkfifo(root / "fifo")
    with trio.fail_after(5):
        for path in ("out", "absolute", "folder/secret", "loop", "proc", "fifo"):
            assert_problem(await client.get(f"/api/sessions/s/files/{path}"), 404, "not_found")
        listed = (await client.get("/api/sessions/s/files")).json()["files"]
        archive = await client.get("/api/sessions/s/archive")
    assert [file["path"] for file in listed] == ["index.html", "menu/ü b.css"]
    assert len(zipfile.ZipFile(io.BytesIO(archive.content)).namelist()) == 2


@pytest.mark.slow
async def test_link_that_is_swapped_while_it_is_read_leads_nowhere(client, daemon):
    root = workspace_of(daemon)
    (root / "a").mkdir()
    (root / "a" / "file").write_text("inside")
    (root / "b").symlink_to(root.parent)
    (root.parent / "file").write_text("outside")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for new, old in (("a", "c"), ("b", "a"), ("a", "b"), ("c", "a")):
                (root / new).rename(root / old)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        texts = [(await client.get("/api/sessions/s/files/a/file")).text for _ in range(300)]
    finally:
        stop.set()
        thread.join()
    assert "inside" in texts
    assert "outside" not in texts


async def test_sparse_terabyte_is_refused_in_an_archive_and_streamed_as_a_file(client, daemon):
    root = workspace_of(daemon)
    with (root / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    assert_problem(await client.get("/api/sessions/s/archive"), 413, "payload_too_large")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with client.stream("GET", "/api/sessions/s/files/sparse") as response:
        assert response.headers["Content-Length"] == str(1 << 40)
        got = 0
        async for data in response.aiter_raw():
            got += len(data)
            if got > 50 << 20:
                break
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # KiB
    assert grown < 30 << 10


async def test_caller_that_leaves_in_the_middle_leaves_nothing_open(tmp_path):
    async with open_test_daemon(tmp_path / "state", **holding(tmp_path)) as daemon, api(daemon.url) as client:
        await ended_session(daemon, client, "s")
        (workspace_of(daemon) / "large.bin").write_bytes(os.urandom(8 << 20))
        for call in ("files/large.bin", "archive"):
            async with await trio.open_tcp_stream("127.0.0.1", port_of(daemon)) as raw:
                await raw.send_all(head("GET", f"/api/sessions/s/{call}"))
                assert b" 200 " in await read_until(raw, b"\r\n\r\n")
        folder = str(workspace_of(daemon))
        with trio.fail_after(5):
            while any(target.startswith(folder) for _, target in descriptors()):
                await trio.sleep(0.005)
