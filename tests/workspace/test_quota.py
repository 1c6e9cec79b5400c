"""Counting a workspace."""

import os
from pathlib import Path

import pytest

from daemon.workspace import quota
from daemon.workspace.quota import Usage, measure
from tests.support import descriptors


def counted(folder: Path, max_entries: int = 1000) -> Usage:
    before = descriptors()
    fd = os.open(folder, os.O_RDONLY)
    try:
        return measure(fd, max_entries)
    finally:
        os.close(fd)
        assert descriptors() == before


def test_what_is_on_disk_counts_once(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/file").write_bytes(os.urandom(1 << 20))
    empty = counted(tmp_path).size
    assert (1 << 20) <= empty < (1 << 20) + 64 * 1024
    os.link(tmp_path / "a/file", tmp_path / "again")
    (tmp_path / "out").symlink_to("/")
    (tmp_path / "loop").symlink_to(".")
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    usage = counted(tmp_path)
    assert usage.size < empty + 64 * 1024
    assert (usage.entries, usage.hidden) == (6, False)


def test_count_ends_soon_after_the_limit(tmp_path):
    for number in range(50):
        (tmp_path / str(number)).touch()
    assert counted(tmp_path, 50).entries == 50
    assert counted(tmp_path, 20).entries == 21


def test_folders_beyond_the_depth_are_said_to_be_hidden(tmp_path):
    folder = tmp_path
    for depth in range(quota._MAX_DEPTH + 1):
        assert not counted(tmp_path).hidden, depth
        folder /= "d"
        folder.mkdir()
    assert counted(tmp_path).hidden


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads what it likes")
def test_unreadable_folder_is_said_to_be_hidden(tmp_path):
    (tmp_path / "closed").mkdir(mode=0)
    assert counted(tmp_path).hidden


@pytest.mark.parametrize(
    ("usage", "excess"),
    [
        (Usage(10 << 20, 10), None),
        (Usage((10 << 20) + 1, 10), "the workspace holds more than its 10 MB"),
        (Usage(1, 11), "the workspace holds more than 10 files and folders"),
        (Usage(1, 1, hidden=True), "cannot be counted"),
    ],
)
def test_excess_is_said(usage, excess):
    said = usage.excess(10 << 20, 10)
    assert said == excess or (excess is not None and said is not None and excess in said)
