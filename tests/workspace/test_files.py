"""The one door into a workspace."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.workspace.beneath import OpenBeneath, open_components, open_kernel
from daemon.workspace.files import Refused, Workspace, open_workspace, relative
from tests.support import descriptors

RACE = 2.0  # s


@pytest.fixture(params=[open_kernel, open_components], ids=["kernel", "components"])
def opener(request) -> OpenBeneath:
    return request.param


@pytest.fixture
def workspace(tmp_path, opener):
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("secret")
    (tmp_path / "w").mkdir()
    before = descriptors()
    with closing(Workspace(tmp_path / "w", max_file=1000, open_beneath=opener)) as workspace:
        yield workspace
    assert descriptors() == before


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- paths

OUTSIDE = [
    "..", "../secret", "a/../../secret", "a/..", "a/../b", "./..", "/etc/passwd", "/", "//", "/secret",
    "/workspace/../secret", "/workspacex/a", "/Workspace/a", "a\0b", "\0", "/workspace/\0", "../w/a", "..//a", "a/b/..",
]  # fmt: skip
NO_NAME = [
    "", ".", "./", "./.", "/workspace", "/workspace/", "/workspace/.", "x" * 256, "a/" + "ü" * 128, "a/" * 600 + "b",
    "\ud800", "a/\udbff", "\udfff",
]  # fmt: skip


@pytest.mark.parametrize("path", OUTSIDE)
def test_path_that_leads_out_is_refused(workspace, path):
    for use in (workspace.read, workspace.open, lambda path: workspace.write(path, b"x")):
        with pytest.raises(Refused, match="outside the workspace"):
            use(path)
    assert workspace.files() == []


@pytest.mark.parametrize("path", NO_NAME)
def test_path_that_names_no_file_is_refused(workspace, path):
    for use in (workspace.read, workspace.open, lambda path: workspace.write(path, b"x")):
        with pytest.raises(Refused, match="not a file name"):
            use(path)
    assert workspace.files() == []


@pytest.mark.parametrize(
    ("path", "is_"),
    [
        ("a", "a"), ("./a", "a"), ("a/", "a"), ("a//b", "a/b"), ("/workspace/a", "a"), ("/workspace//a", "a"),
        ("...", "..."), ("a/..b", "a/..b"), ("a b", "a b"), ("-rf", "-rf"), ("ü/日本", "ü/日本"), ("a\\..\\b", "a\\..\\b"),
        ("%2e%2e/a", "%2e%2e/a"), ("workspace/a", "workspace/a"), ("x" * 255, "x" * 255), ("\udcff", "\udcff"),
    ],
)  # fmt: skip
def test_path_inside_has_one_form(workspace, path, is_):
    assert relative(path) == is_
    workspace.write(path, b"x")
    assert workspace.read(is_) == b"x"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
@given(path=st.text(st.sampled_from("./a\0\udcff\ud800ü~\\") | st.characters(), max_size=12))
def test_no_path_reads_what_is_outside(workspace, path):
    try:
        data = workspace.read(path)
    except Refused:
        return
    raise AssertionError(f"{path!r} gave {data!r}")  # the workspace is empty


def test_symlinks_out_are_refused_for_reading_and_replaced_by_writing(workspace, tmp_path):
    for name, target in {
        "a": "../secret",
        "b": str(tmp_path / "secret"),
        "c": "/proc/self/environ",
        "d": "/dev/null",
    }.items():
        (workspace.root / name).symlink_to(target)
        with pytest.raises(Refused, match="outside the workspace"):
            workspace.read(name)
        workspace.write(name, b"mine")
        assert workspace.read(name) == b"mine"
    assert (tmp_path / "secret").read_text() == "secret"


def test_nothing_is_written_through_a_folder_that_leads_out(workspace, tmp_path):
    (workspace.root / "out").symlink_to("../outside")
    for path in ("out/file", "out/new", "out/sub/new"):
        with pytest.raises(Refused):
            workspace.read(path)
        with pytest.raises(Refused):
            workspace.write(path, b"mine")
    assert names(tmp_path / "outside") == ["file"]
    assert (tmp_path / "outside" / "file").read_text() == "secret"


def test_symlink_that_stays_inside_is_followed_where_the_kernel_can(workspace, opener):
    workspace.write("folder/file", b"inside")
    (workspace.root / "link").symlink_to("folder/file")
    if opener is open_kernel:
        assert workspace.read("link") == b"inside"
    else:
        with pytest.raises(Refused):
            workspace.read("link")


# --- what is no regular file


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def make_device(path: Path) -> None:
    try:
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero
    except PermissionError:
        pytest.skip("making a device needs root")


@pytest.mark.parametrize("make", [make_fifo, make_socket, make_device, Path.mkdir])
def test_what_is_no_regular_file_is_refused_at_once(workspace, make):
    make(workspace.root / "x")
    begun = time.monotonic()
    with pytest.raises(Refused):
        workspace.read("x")
    with pytest.raises(Refused):
        workspace.open("x")
    assert time.monotonic() - begun < 1
    assert workspace.files() == []


@pytest.mark.parametrize("make", [make_fifo, make_socket, make_device])
def test_what_is_no_regular_file_is_replaced_by_writing(workspace, make):
    make(workspace.root / "x")
    workspace.write("x", b"mine")
    assert workspace.read("x") == b"mine"


def test_folder_is_not_written_over(workspace):
    workspace.write("folder/file", b"x")
    with pytest.raises(Refused, match="is a folder"):
        workspace.write("folder", b"x")
    assert workspace.files() == ["folder/file"]


# --- reading


def test_open_file_says_its_size_and_time(workspace):
    workspace.write("a", b"four")
    opened = workspace.open("a")
    status = os.fstat(opened.fd)
    os.close(opened.fd)
    assert (opened.size, opened.mtime_ns) == (4, status.st_mtime_ns)


@pytest.mark.parametrize("limit", [None, 10])
def test_file_beyond_the_limit_is_refused(workspace, limit):
    size = limit or 1000
    (workspace.root / "fits").write_bytes(b"x" * size)
    (workspace.root / "large").write_bytes(b"x" * (size + 1))
    assert len(workspace.read("fits", limit)) == size
    with pytest.raises(Refused, match=f"larger than {size} bytes"):
        workspace.read("large", limit)


def test_huge_sparse_file_costs_nothing(tmp_path, opener):
    with closing(Workspace(tmp_path, max_file=1 << 40, open_beneath=opener)) as workspace:
        with (tmp_path / "huge").open("wb") as file:
            file.truncate(1 << 42)
        begun = time.monotonic()
        with pytest.raises(Refused, match="larger than"):
            workspace.read("huge")
        assert time.monotonic() - begun < 0.5


def test_file_that_grows_while_it_is_read_stays_within_the_limit(workspace):
    path = workspace.root / "log"
    with growing(path):
        outcomes = set()
        for _ in range(500):
            try:
                data = workspace.read("log", 900)
            except Refused:
                outcomes.add("refused")
                path.write_bytes(b"")  # from the start again
            else:
                outcomes.add("read")
                assert len(data) <= 900
                assert set(data) <= {ord("x")}
    assert outcomes == {"read", "refused"}


@contextmanager
def growing(path: Path) -> Iterator[None]:
    stop = threading.Event()
    path.write_bytes(b"")

    def grow() -> None:
        while not stop.is_set():
            with path.open("ab") as file:
                file.write(b"x" * 37)

    thread = threading.Thread(target=grow)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


# --- writing


def test_folders_on_the_way_are_made(workspace):
    workspace.write("a/b/c/file", b"x")
    workspace.write("a/b/other", b"y")
    assert workspace.files() == ["a/b/c/file", "a/b/other"]


def test_file_in_the_way_of_a_folder_is_refused(workspace):
    workspace.write("a", b"x")
    with pytest.raises(Refused):
        workspace.write("a/b", b"y")
    assert workspace.read("a") == b"x"


def test_write_beyond_the_limit_leaves_the_old_file(workspace):
    workspace.write("a", b"old")
    with pytest.raises(Refused, match="larger than 1000 bytes"):
        workspace.write("a", b"x" * 1001)
    assert workspace.read("a") == b"old"


def test_write_that_fails_leaves_nothing_behind(workspace):
    resource = pytest.importorskip("resource")
    import signal

    workspace.write("a", b"old")
    limits, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        with pytest.raises(Refused, match="File too large"):
            workspace.write("a", b"x" * 900)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert names(workspace.root) == ["a"]
    assert workspace.read("a") == b"old"


def test_reader_sees_the_old_file_or_the_new_one(tmp_path, opener):
    with closing(Workspace(tmp_path, max_file=1 << 20, open_beneath=opener)) as workspace:
        workspace.write("a", b"0" * (1 << 18))
        done = threading.Event()

        def write() -> None:
            try:
                for number in range(300):
                    workspace.write("a", b"%d" % (number % 10) * (1 << 18))
            finally:
                done.set()

        writer = threading.Thread(target=write)
        writer.start()
        seen = set()
        while not done.is_set():
            data = workspace.read("a")
            assert len(data) == 1 << 18
            assert data.count(data[:1]) == len(data)
            seen.add(data[:1])
        writer.join()
        assert len(seen) > 1
        assert names(tmp_path) == ["a"]


# --- listing


def test_files_are_listed_sorted_and_without_what_is_none(workspace):
    for path in ("b", "a/z", "a/b/c", ".hidden"):
        workspace.write(path, b"x")
    make_fifo(workspace.root / "fifo")
    (workspace.root / "link").symlink_to("b")
    (workspace.root / "out").symlink_to("../outside")
    (workspace.root / ".footlight-0123").write_text("half written")
    assert workspace.files() == [".hidden", "a/b/c", "a/z", "b"]


def test_name_that_no_text_can_hold_is_not_listed_but_read(workspace):
    (workspace.root / "a").write_text("x")
    Path(os.fsdecode(bytes(workspace.root) + b"/\xff.html")).write_text("odd")
    assert workspace.files() == ["a"]
    assert workspace.read("\udcff.html") == b"odd"


def test_listing_ends_at_a_bound(workspace, monkeypatch):
    from daemon.workspace import files

    monkeypatch.setattr(files, "MAX_FILES", 5)
    for number in range(10):
        workspace.write(f"{number % 3}/{number}", b"")
    assert len(workspace.files()) == 5


def test_listing_does_not_go_down_for_ever(workspace):
    workspace.write("/".join(["d"] * 32) + "/seen", b"")
    workspace.write("/".join(["d"] * 33) + "/unseen", b"")
    assert [path.rsplit("/", 1)[1] for path in workspace.files()] == ["seen"]


# --- the door itself


def test_door_makes_its_folder_and_keeps_the_files(tmp_path):
    before = descriptors()
    with open_workspace(tmp_path / "a" / "b", max_file=10) as workspace:
        workspace.write("file", b"x")
    workspace.close()
    assert descriptors() == before
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"x"


def test_closed_door_opens_nothing(tmp_path):
    with open_workspace(tmp_path, max_file=10) as workspace:
        workspace.write("file", b"x")
    for use in (lambda: workspace.read("file"), lambda: workspace.write("file", b"y")):
        with pytest.raises(Refused):
            use()
    assert workspace.files() == []


# --- a folder that is swapped for a symlink while it is used

SWAP = """
import ctypes
libc = ctypes.CDLL(None)
print("ready", flush=True)
while libc.renameat2(-100, b"d", -100, b"link", 2) == 0:  # AT_FDCWD, RENAME_EXCHANGE: one of the two is always there
    pass
"""


@contextmanager
def swapping(root: Path) -> Iterator[None]:
    (root / "d").mkdir()
    (root / "d" / "file").write_text("inside")
    (root / "link").symlink_to("../outside")
    process = subprocess.Popen([sys.executable, "-c", SWAP], cwd=root, stdout=subprocess.PIPE, env={})
    try:
        assert process.stdout.readline() == b"ready\n"
        yield
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def attempts(read: Callable[[], bytes], seconds: float, enough: int = 1 << 62) -> tuple[int, int]:
    """How often something was read, and how often it was the secret, within a time or until it was often enough."""
    reads = leaks = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end and leaks < enough:
        try:
            data = read()
        except (Refused, OSError):
            continue
        reads += 1
        leaks += data == b"secret"
    return reads, leaks


def test_swapped_folder_leaks_nothing(workspace):
    with swapping(workspace.root):
        reads, leaks = attempts(lambda: workspace.read("d/file"), RACE)
    assert reads > 100
    assert leaks == 0


def test_swapped_folder_lets_nothing_be_written_outside(workspace, tmp_path):
    def write() -> bytes:
        workspace.write("d/file", b"mine")
        return b"written"

    with swapping(workspace.root):
        writes, _ = attempts(write, RACE / 2)
    assert writes > 10
    assert names(tmp_path / "outside") == ["file"]
    assert (tmp_path / "outside" / "file").read_text() == "secret"


def test_looking_before_opening_would_leak(workspace):
    root = workspace.root.resolve()
    path = root / "d" / "file"

    def read() -> bytes:
        if not path.resolve(strict=True).is_relative_to(root):
            raise Refused("outside")
        return path.read_bytes()

    with swapping(root):
        _, leaks = attempts(read, 20.0, enough=1)
    assert leaks == 1  # so the race above is a real one


# --- a write that is given up, a door that is closed upon a slow disk


def test_write_that_is_given_up_at_the_last_moment_leaves_the_old_file_alone(workspace):
    workspace.write("a.txt", b"old")

    def give_up() -> None:
        assert len(names(workspace.root)) == 2  # the new one is whole, under a name that nobody asks for
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        workspace.write("a.txt", b"new", check=give_up)
    assert workspace.read("a.txt") == b"old"
    assert names(workspace.root) == ["a.txt"]


def test_descriptor_is_given_back_by_who_uses_it_last(tmp_path, opener):
    inside, go_on = threading.Event(), threading.Event()

    def slow(root: int, path: str, flags: int, mode: int) -> int:
        inside.set()
        assert go_on.wait(5)
        return opener(root, path, flags, mode)

    (tmp_path / "a.txt").write_text("a")
    before = descriptors()
    workspace, found = Workspace(tmp_path, max_file=10, open_beneath=slow), []
    reader = threading.Thread(target=lambda: found.append(workspace.read("a.txt")))
    reader.start()
    assert inside.wait(5)
    workspace.close()
    assert {target for _, target in descriptors() - before} == {str(tmp_path)}
    go_on.set()
    reader.join()
    assert found == [b"a"]
    assert descriptors() == before
