"""Routes of a session's workspace: what is in it, one file, all of it; also when the session has ended.

The files are the agent's own: none of them may become a page of the API's origin.
"""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from io import BufferedReader
from pathlib import Path
from typing import Self
from urllib.parse import quote

import trio
from quart import Blueprint, Response, request
from quart.wrappers.response import ResponseBody
from werkzeug.routing import PathConverter

from daemon.api.described import document_response, refuses, sends, tag
from daemon.api.schemas import FileEntry, FileList, answer
from daemon.errors import CallerError
from daemon.sessions.registry import Registry
from daemon.workspace.archive import PIECE, zipped
from daemon.workspace.files import MAX_FILES, Found, Refused, Workspace
from daemon.workspace.media import content_type, last_modified, modified, tag_of, unchanged

_POLICY = "default-src 'none'; sandbox; frame-ancestors 'none'"


class AnyPath(PathConverter):
    """Werkzeug's own, for names with a line feed in them too, which a file may have."""

    regex = r"(?s:[^/].*?)"


class Pieces(ResponseBody):
    """What an iterator gives, each piece made in a thread. Cancelled, the piece that is being made is still waited for."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        if (close := getattr(self._pieces, "close", None)) is not None:
            close()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        piece = await trio.to_thread.run_sync(next, self._pieces, None)
        if piece is None:
            raise StopAsyncIteration
        return piece


def routes(registry: Registry) -> Blueprint:
    """The routes, bound to one daemon's sessions."""
    blueprint = Blueprint("files", __name__)

    def root_of(session_id: str) -> Path:
        registry.get(session_id)  # or there is no such session
        return registry.config.session_dir(session_id) / "workspace"

    @blueprint.get("/api/sessions/<session_id>/files")
    @tag(["files"])
    @document_response(FileList, 200)
    @refuses(404)
    async def list_files(session_id: str) -> Response:
        """The files of a session's workspace, by path; no symlinks, and names only that are UTF-8."""
        found = await trio.to_thread.run_sync(_survey, root_of(session_id))
        return answer(FileList([_entry(one) for one in found], len(found) >= MAX_FILES))

    @blueprint.get("/api/sessions/<session_id>/files/<path:path>")
    @tag(["files"])
    @sends("*/*")
    @refuses(404)
    async def get_file(session_id: str, path: str) -> Response:
        """One file, to be kept: a browser saves it, and shows no page of the agent's at this origin."""
        file = await trio.to_thread.run_sync(_open, root_of(session_id), path)
        status = os.fstat(file.fileno())
        etag = f'"{tag_of(status.st_size, status.st_mtime_ns)}"'
        headers = {
            "ETag": etag,
            "Last-Modified": last_modified(status.st_mtime_ns),
            "Cache-Control": "no-cache",
            "Content-Security-Policy": _POLICY,
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(path.rpartition('/')[2], safe='')}",
        }
        if unchanged(
            etag,
            status.st_mtime_ns,
            none_match=request.headers.get("If-None-Match"),
            modified_since=request.headers.get("If-Modified-Since"),
        ):
            file.close()
            return Response("", 304, headers)
        if request.method == "HEAD":
            file.close()
        response = _streamed(_read(file, status.st_size), content_type(path), headers)
        response.headers["Content-Length"] = str(status.st_size)
        return response

    @blueprint.get("/api/sessions/<session_id>/archive")
    @tag(["files"])
    @sends("application/zip")
    @refuses(404, 413)
    async def get_archive(session_id: str) -> Response:
        """The files of a session's workspace as a ZIP."""
        root = root_of(session_id)
        found = await trio.to_thread.run_sync(_survey, root)
        limit = registry.config.max_archive
        if len(found) >= MAX_FILES or sum(one.size for one in found) > limit:
            raise CallerError(
                "payload_too_large", 413, f"an archive has at most {limit} bytes in less than {MAX_FILES} files"
            )
        headers = {"Cache-Control": "no-store", "Content-Disposition": f'attachment; filename="{session_id}.zip"'}
        return _streamed(zipped(root) if root.is_dir() else iter([_EMPTY_ZIP]), "application/zip", headers)

    return blueprint


_EMPTY_ZIP = b"PK\x05\x06" + bytes(18)


def _streamed(pieces: Iterator[bytes], kind: str, headers: dict[str, str]) -> Response:
    """An answer that is sent as it is made; to HEAD, nothing is made."""
    response = Response(Pieces(iter(()) if request.method == "HEAD" else pieces), 200, headers, content_type=kind)
    response.timeout = None
    return response


def _entry(found: Found) -> FileEntry:
    mtime = modified(found.mtime_ns).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return FileEntry(found.path, found.size, mtime, content_type(found.path))


def _survey(root: Path) -> list[Found]:
    """What is there; nothing where the session has not begun to work."""
    try:
        workspace = Workspace(root, max_file=0)
    except FileNotFoundError:
        return []
    with closing(workspace):
        return workspace.survey()


def _open(root: Path, path: str) -> BufferedReader:
    try:
        with closing(Workspace(root, max_file=0)) as workspace:
            return os.fdopen(workspace.open(path).fd, "rb")
    except (FileNotFoundError, Refused):
        raise CallerError("not_found", 404, "there is no such file") from None


def _read(file: BufferedReader, size: int) -> Iterator[bytes]:
    """As many bytes as were promised, or fewer where the file has become shorter."""
    with file:
        while size > 0 and (data := file.read(min(PIECE, size))):
            size -= len(data)
            yield data
