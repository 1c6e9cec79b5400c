"""A workspace as a ZIP, made piece by piece."""

import io
import os
import zipfile

import pytest

from daemon.workspace.archive import PIECE, zipped
from tests.support import descriptors


def unpacked(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def test_every_file_is_in_it_as_it_is(tmp_path):
    files = {"index.html": b"<h1>", "a/b/c.txt": b"", "ü/日本.txt": b"x", "large.bin": os.urandom(3 * PIECE + 1)}
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    before = descriptors()
    pieces = list(zipped(tmp_path))
    assert descriptors() == before
    assert unpacked(b"".join(pieces)) == files
    assert max(map(len, pieces)) < 2 * PIECE


def test_empty_workspace_is_an_empty_archive(tmp_path):
    assert unpacked(b"".join(zipped(tmp_path))) == {}


def test_nothing_but_regular_files_is_in_it(tmp_path):
    (tmp_path / "secret").write_text("secret")
    root = tmp_path / "w"
    root.mkdir()
    (root / "a.txt").write_text("a")
    (root / "link").symlink_to("../secret")
    (root / "absolute").symlink_to(tmp_path / "secret")
    (root / "folder").symlink_to("..")
    os.mkfifo(root / "fifo")
    assert unpacked(b"".join(zipped(root))) == {"a.txt": b"a"}


@pytest.mark.parametrize(
    ("name", "inside"),
    [("..\\..\\evil.txt", ".._.._evil.txt"), ("C:\\evil", "C__evil"), ("a\nb", "a_b"), ("-rf", "-rf"), ("...", "...")],
)
def test_name_leads_nowhere_else_on_another_system(tmp_path, name, inside):
    (tmp_path / name).write_bytes(b"x")
    assert list(unpacked(b"".join(zipped(tmp_path)))) == [inside]


def test_names_that_would_be_one_stay_two(tmp_path):
    for name in ("a:b", "a*b", "A_b"):
        (tmp_path / name).write_text(name)
    assert sorted(data.decode() for data in unpacked(b"".join(zipped(tmp_path))).values()) == ["A_b", "a*b", "a:b"]


def test_file_that_grows_or_goes_while_it_is_packed_ends_it_all_the_same(tmp_path):
    (tmp_path / "a.bin").write_bytes(os.urandom(2 * PIECE))
    (tmp_path / "b.bin").write_bytes(b"b")
    pieces = []
    for piece in zipped(tmp_path):
        pieces.append(piece)
        with (tmp_path / "a.bin").open("ab") as file:
            file.write(bytes(PIECE))
        (tmp_path / "b.bin").unlink(missing_ok=True)
    found = unpacked(b"".join(pieces))
    assert {name: len(data) for name, data in found.items()} == {"a.bin": 2 * PIECE}


def test_time_before_and_after_what_a_zip_can_say_is_brought_within(tmp_path):
    for name, seconds in {"old": 0, "late": 10**11}.items():
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (seconds, seconds))
    with zipfile.ZipFile(io.BytesIO(b"".join(zipped(tmp_path)))) as archive:
        assert {info.filename: info.date_time[0] for info in archive.infolist()} == {"old": 1980, "late": 2107}


def test_closed_early_it_leaves_nothing_open(tmp_path):
    (tmp_path / "a.bin").write_bytes(os.urandom(4 * PIECE))
    before = descriptors()
    pieces = zipped(tmp_path)
    next(pieces)
    assert descriptors() != before
    pieces.close()
    assert descriptors() == before
