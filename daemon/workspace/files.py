"""The one door into a workspace: every read and write of the daemon goes through `Workspace`; calls block.

Nothing but regular files is read, nothing outside the folder is reached, and a write is seen whole or not at all.
"""

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from daemon.workspace import beneath
from daemon.workspace.quota import Usage, measure
from daemon.workspace.visits import Visits

MOUNT = "/workspace"  # the name that the agent knows the folder by
MAX_FILES = 10_000
_MAX_DEPTH = 32
_TEMPORARY = ".footlight-"
Stamp = tuple[int, int, int]  # when a file was changed in ns, its size, its inode


class Refused(Exception):
    """The path, or what stands there, cannot be used; the text is for the agent or the visitor."""


@dataclass(frozen=True)
class Opened:
    """A regular file, open for reading; whoever asked closes `fd`."""

    fd: int
    size: int
    mtime_ns: int


class Found(NamedTuple):
    """A regular file, as a listing has it."""

    path: str
    size: int
    mtime_ns: int


class Workspace:
    """Made by `open_workspace`."""

    def __init__(self, root: Path, *, max_file: int, open_beneath: beneath.OpenBeneath = beneath.open_beneath) -> None:
        self.root = root
        self.max_file = max_file
        self.visits = Visits()
        self._open_beneath = open_beneath
        self._fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._lock = Lock()
        self._users = 1  # who opens something at this moment, and whoever made this until they close it
        self._closed = False

    def close(self) -> None:
        """Open nothing more; idempotent. The descriptor is given back by whoever uses it last.

        A thread that a slow disk holds up may outlive its session, and the number of a closed descriptor is soon another's.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._leave()

    def open(self, path: str) -> Opened:
        """Open a regular file for reading."""
        fd = self._open(relative(path), os.O_RDONLY)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise Refused(f"{path}: not a regular file")
            return Opened(fd, status.st_size, status.st_mtime_ns)
        except BaseException:
            os.close(fd)
            raise

    def has(self, path: str) -> bool:
        """Whether there is such a file."""
        try:
            os.close(self.open(path).fd)
        except Refused:
            return False
        return True

    def read(self, path: str, limit: int | None = None) -> bytes:
        """A whole file of at most `limit` bytes."""
        limit = self.max_file if limit is None else limit
        opened = self.open(path)
        with os.fdopen(opened.fd, "rb") as file:
            data = file.read(limit + 1) if opened.size <= limit else b""
        if opened.size > limit or len(data) > limit:  # it may grow while it is read
            raise Refused(f"{path}: larger than {limit} bytes")
        return data

    def write(self, path: str, data: bytes, *, check: Callable[[], object] = bool) -> None:
        """Put a file in place, with the folders on its way; a reader sees the old file or the new one.

        Where `check` raises, at the last moment before it would be seen, the old one stays.
        """
        name = relative(path)
        if len(data) > self.max_file:
            raise Refused(f"{path}: larger than {self.max_file} bytes")
        with self._folder_of(name) as (folder, last):
            temporary = _TEMPORARY + secrets.token_hex(8)
            with _refusing(path):
                if _is_folder(last, folder):
                    raise Refused(f"{path}: is a folder")
                fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=folder)
                try:
                    with os.fdopen(fd, "wb") as file:
                        file.write(data)
                    check()
                    os.rename(temporary, last, src_dir_fd=folder, dst_dir_fd=folder)
                except BaseException:
                    with suppress(OSError):
                        os.unlink(temporary, dir_fd=folder)
                    raise

    def files(self) -> list[str]:
        """The paths of all regular files, sorted; symlinks are not followed, and it ends at 10,000.

        A name that is not UTF-8 is left out: nothing that lists it could say it.
        """
        return sorted(self.stamps())

    def survey(self) -> list[Found]:
        """The same files, with what is known of each."""
        return [Found(path, size, mtime_ns) for path, (mtime_ns, size, _) in sorted(self.stamps().items())]

    def stamps(self) -> dict[str, Stamp]:
        """What tells a changed file from an unchanged one, by path, for the same files."""
        found: dict[str, Stamp] = {}
        self._walk("", 0, found)
        return found

    def usage(self, max_entries: int) -> Usage:
        """How much it holds, counted as far as `max_entries` files and folders."""
        with self._root() as fd:
            return measure(fd, max_entries)

    def _walk(self, folder: str, depth: int, found: dict[str, Stamp]) -> None:
        try:
            fd = self._open(folder or ".", os.O_RDONLY | os.O_DIRECTORY)
        except Refused:
            return  # it went away, or became something else
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    if len(found) >= MAX_FILES:
                        return
                    if entry.name.startswith(_TEMPORARY) or not _is_text(entry.name):
                        continue
                    if entry.is_file(follow_symlinks=False):
                        with suppress(FileNotFoundError):
                            status = entry.stat(follow_symlinks=False)
                            found[folder + entry.name] = (status.st_mtime_ns, status.st_size, status.st_ino)
                    elif entry.is_dir(follow_symlinks=False) and depth < _MAX_DEPTH:
                        self._walk(f"{folder}{entry.name}/", depth + 1, found)
        finally:
            os.close(fd)

    def _open(self, path: str, flags: int) -> int:
        with self._root() as root, _refusing(path):
            return self._open_beneath(root, path, flags, 0o644)

    @contextmanager
    def _root(self) -> Iterator[int]:
        """The folder's descriptor, which stays open meanwhile."""
        with self._lock:
            if self._closed:
                raise Refused("the session has ended")
            self._users += 1
        try:
            yield self._fd
        finally:
            self._leave()

    def _leave(self) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                os.close(self._fd)

    @contextmanager
    def _folder_of(self, path: str) -> Iterator[tuple[int, str]]:
        """The folder of a path, made where absent, and the path's last name."""
        *folders, last = path.split("/")
        for depth in range(1, len(folders) + 1):
            above = self._open("/".join(folders[: depth - 1]) or ".", os.O_RDONLY | os.O_DIRECTORY)
            try:
                with _refusing(path), suppress(FileExistsError):
                    os.mkdir(folders[depth - 1], 0o755, dir_fd=above)
            finally:
                os.close(above)
        folder = self._open("/".join(folders) or ".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield folder, last
        finally:
            os.close(folder)


def relative(path: str) -> str:
    """A path as it is beneath the workspace; one that cannot be there is `Refused`."""
    inside = path.removeprefix(MOUNT) if path == MOUNT or path.startswith(MOUNT + "/") else path
    if path != inside:
        inside = inside.lstrip("/")
    parts = [part for part in inside.split("/") if part not in {"", "."}]
    if inside.startswith("/") or ".." in parts or "\0" in inside:
        raise Refused(f"{path!r}: outside the workspace")
    try:
        sizes = [len(os.fsencode(part)) for part in parts]
    except UnicodeEncodeError:  # half of a surrogate pair
        sizes = []
    if not sizes or len(inside) > 1024 or max(sizes) > 255:
        raise Refused(f"{path[:80]!r}: not a file name")
    return "/".join(parts)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_folder(name: str, dir_fd: int) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


@contextmanager
def _refusing(path: str) -> Iterator[None]:
    """The system's refusals become ours."""
    try:
        yield
    except (OSError, UnicodeEncodeError) as error:
        code = error.errno if isinstance(error, OSError) else None
        if code in {errno.EXDEV, errno.ELOOP}:
            raise Refused(f"{path}: outside the workspace") from None
        reason = error.strerror if isinstance(error, OSError) else "not a file name"
        raise Refused(f"{path}: {reason}") from None


def open_workspace(root: Path, *, max_file: int) -> AbstractContextManager[Workspace]:
    """The door to a folder, made where it is absent; leaving closes the door and keeps the files."""
    root.mkdir(parents=True, exist_ok=True)
    return closing(Workspace(root, max_file=max_file))
