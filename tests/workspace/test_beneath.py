"""Opening beneath a root, by the kernel and component by component: the same answers, but for symlinks that stay inside."""

import errno
import os

import pytest

from daemon.workspace import beneath
from daemon.workspace.beneath import open_components, open_kernel
from tests.support import descriptors

BOTH = pytest.mark.parametrize("open_beneath", [open_kernel, open_components])


@pytest.fixture
def root(tmp_path):
    home = tmp_path / "root"
    (home / "folder" / "deep").mkdir(parents=True)
    (home / "file").write_text("file")
    (home / "folder" / "file").write_text("folder/file")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("secret")
    (home / "out").symlink_to("../secret")
    (home / "absolute").symlink_to(tmp_path / "secret")
    (home / "out_folder").symlink_to("../outside")
    (home / "in").symlink_to("folder/file")
    (home / "in_folder").symlink_to("folder")
    (home / "loop").symlink_to("loop")
    (home / "dangling").symlink_to("nowhere")
    fd = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def read(open_beneath, root, path):
    fd = open_beneath(root, path, os.O_RDONLY, 0)
    try:
        return os.read(fd, 100).decode()
    finally:
        os.close(fd)


def test_linux_here_has_the_kernels_form():
    assert beneath.open_beneath is open_kernel


@BOTH
@pytest.mark.parametrize("path", ["file", "folder/file", "./file", "folder//file", "folder/./file"])
def test_file_inside_is_opened(root, open_beneath, path):
    assert read(open_beneath, root, path) in {"file", "folder/file"}


@BOTH
@pytest.mark.parametrize(
    ("path", "codes"),
    [
        ("../secret", {errno.EXDEV}),
        ("folder/../../secret", {errno.EXDEV}),
        ("..", {errno.EXDEV}),
        ("out", {errno.EXDEV, errno.ELOOP}),
        ("absolute", {errno.EXDEV, errno.ELOOP}),
        ("out_folder/file", {errno.EXDEV, errno.ENOTDIR}),
        ("loop", {errno.ELOOP}),
        ("absent", {errno.ENOENT}),
        ("absent/file", {errno.ENOENT}),
        ("file/below", {errno.ENOTDIR}),
        ("dangling", {errno.ENOENT, errno.ELOOP}),
        ("x" * 256, {errno.ENAMETOOLONG}),
    ],
)
def test_path_that_leads_out_or_nowhere_is_refused(root, open_beneath, path, codes):
    before = descriptors()
    with pytest.raises(OSError) as refused:
        open_beneath(root, path, os.O_RDONLY, 0)
    assert refused.value.errno in codes
    assert descriptors() == before


def test_absolute_path_is_outside_for_the_kernel(root):
    with pytest.raises(OSError) as refused:
        open_kernel(root, "/etc/passwd", os.O_RDONLY, 0)
    assert refused.value.errno == errno.EXDEV


def test_absolute_path_is_beneath_the_root_for_components(root):
    assert read(open_components, root, "/file") == "file"


@pytest.mark.parametrize("path", ["in", "in_folder/file"])
def test_symlink_that_stays_inside_is_followed_by_the_kernel_alone(root, path):
    assert read(open_kernel, root, path) == "folder/file"
    with pytest.raises(OSError):
        open_components(root, path, os.O_RDONLY, 0)


@BOTH
def test_folder_itself_is_opened_by_a_dot(root, open_beneath):
    fd = open_beneath(root, ".", os.O_RDONLY | os.O_DIRECTORY, 0)
    assert os.path.samestat(os.fstat(fd), os.fstat(root))
    os.close(fd)


@BOTH
def test_file_is_created_with_its_mode(root, open_beneath):
    fd = open_beneath(root, "folder/new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    assert os.fstat(fd).st_mode & 0o777 == 0o600
    os.close(fd)


@BOTH
def test_fifo_is_opened_without_waiting_for_its_other_end(root, open_beneath):
    os.mkfifo("fifo", dir_fd=root)
    os.close(open_beneath(root, "fifo", os.O_RDONLY, 0))


@BOTH
def test_descriptor_is_not_inherited(root, open_beneath):
    fd = open_beneath(root, "file", os.O_RDONLY, 0)
    assert not os.get_inheritable(fd)
    os.close(fd)


def test_magic_link_is_not_followed(root):
    proc = os.open("/proc/self", os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(OSError) as refused:
            open_kernel(proc, f"fd/{root}", os.O_RDONLY, 0)
        assert refused.value.errno in {errno.ELOOP, errno.EXDEV}
    finally:
        os.close(proc)
