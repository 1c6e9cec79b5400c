"""A workspace as a ZIP file, made piece by piece; blocks."""

import os
import re
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from daemon.workspace.files import Refused, Workspace
from daemon.workspace.media import modified

PIECE = 256 * 1024  # bytes read at once
_UNSAFE = re.compile(r'[\x00-\x1f\x7f\\:*?"<>|]')  # what leads elsewhere, or cannot be a name, on another system


class _Sink:
    """Takes what is written until it is asked for."""

    def __init__(self) -> None:
        self._written = bytearray()

    def write(self, data: bytes) -> int:
        self._written += data
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def take(self) -> bytes:
        data = bytes(self._written)
        self._written.clear()
        return data


def zipped(root: Path) -> Iterator[bytes]:
    """The regular files beneath a folder as a ZIP; what goes away or shrinks meanwhile is left out or short.

    Closed early, nothing is left open.
    """
    sink, taken = _Sink(), set[str]()
    with closing(Workspace(root, max_file=0)) as workspace:
        # Opened for writing only, it asks for nothing but `write` and `flush`.
        with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:  # type: ignore[call-overload]
            for path in workspace.files():
                yield from _member(workspace, path, archive, sink, taken)
        yield sink.take()


def _member(workspace: Workspace, path: str, archive: zipfile.ZipFile, sink: _Sink, taken: set[str]) -> Iterator[bytes]:
    try:
        opened = workspace.open(path)
    except Refused:
        return
    with os.fdopen(opened.fd, "rb") as file:
        info = zipfile.ZipInfo(_name(path, taken), modified(opened.mtime_ns).timetuple()[:6])
        info.compress_type, info.file_size = zipfile.ZIP_DEFLATED, opened.size
        info.external_attr = 0o644 << 16
        left = opened.size  # what is written to it meanwhile could go on for ever
        with archive.open(info, "w") as member:
            while left > 0 and (data := file.read(min(PIECE, left))):
                left -= len(data)
                member.write(data)
                if piece := sink.take():
                    yield piece


def _name(path: str, taken: set[str]) -> str:
    """A name that leads nowhere else wherever it is unpacked, and is no other file's."""
    name = _UNSAFE.sub("_", path)
    while name.lower() in taken:
        name += "_"
    taken.add(name.lower())
    return name
