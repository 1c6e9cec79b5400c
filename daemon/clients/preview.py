"""The preview: the files that the agent has built, as a static site.

A visitor brings a token once; it is exchanged for a cookie that opens this session's preview and nothing else. Cookies do not
tell ports apart, so its name is the session's own.
"""

import os
from urllib.parse import quote, unquote, urlencode

import trio

from daemon.clients.auth import Tokens
from daemon.clients.http import Request, Response, text
from daemon.clients.live import RESERVED, VERSION, Live, injected
from daemon.journal.journal import Journal
from daemon.workspace.files import Opened, Refused, Workspace
from daemon.workspace.media import content_type, last_modified, tag_of, unchanged

_CACHE = "no-cache"  # ask again each time: the agent may have changed it
_INLINE_READ = 256 * 1024  # bytes: a larger file is read in a thread


class Preview:
    """Serves one workspace."""

    def __init__(self, journal: Journal, workspace: Workspace, tokens: Tokens, *, wait: float) -> None:
        self.secure = False  # whether the public URL is https
        self._cookie = f"footlight_{journal.session_id}"
        self._workspace = workspace
        self._live = Live(journal, workspace, wait=wait)
        self._tokens = tokens

    async def respond(self, request: Request) -> Response:
        """The file at the request's path, for who may see it."""
        if request.method not in {"GET", "HEAD"} and not request.path.startswith(RESERVED):
            return text(405, "the preview is read only", Allow="GET, HEAD")
        if "token" in request.query:
            if self._tokens.role_of(request.query["token"]) is None:
                return text(401, "this token opens nothing")
            return self._let_in(request)
        if not self._tokens.opens_preview(request.cookies.get(self._cookie)):
            return text(401, "open the preview by the URL that carries its token")
        if request.path.startswith(RESERVED):
            return await self._live.respond(request, self._tag(request.query.get("path", "")))
        return await self._file(request)

    def close(self) -> None:
        """Answer the pages that wait."""
        self._workspace.visits.close()

    def _let_in(self, request: Request) -> Response:
        rest = {name: value for name, value in request.query.items() if name != "token"}
        # One leading slash: `//host/` would be another site.
        clean = f"{request.mount}/" + request.raw_path.lstrip("/\\") + (f"?{urlencode(rest)}" if rest else "")
        secure = self.secure if not request.mount or request.forwarded_https is None else request.forwarded_https
        cookie = f"{self._cookie}={self._tokens.preview}; Path={request.mount}/; HttpOnly; SameSite=Lax" + (
            "; Secure" if secure else ""
        )
        return Response(302, b"", {"Location": clean, "Set-Cookie": cookie, "Cache-Control": "no-store"})

    async def _file(self, request: Request) -> Response:
        path = request.path.lstrip("/")
        try:
            name, opened = self._open(path)
        except IsADirectoryError:
            folder = request.mount + quote("/" + path, errors="surrogateescape") + "/"
            return Response(302, b"", {"Location": folder, "Cache-Control": _CACHE})
        except Refused:
            waiting = "there is no page yet; the agent has not written index.html" if not path else "no such file"
            return text(404, waiting, Cache_Control=_CACHE)
        try:
            tag, kind = tag_of(opened.size, opened.mtime_ns), content_type(name)
            # A page of the site, not its text for a script or a tool.
            page = kind.startswith("text/html") and "text/html" in request.headers.get("accept", "").lower()
            etag = f'"{tag}-{VERSION}"' if page else f'"{tag}"'
            headers = {
                "Content-Type": kind,
                "Cache-Control": _CACHE,
                "ETag": etag,
                "Last-Modified": last_modified(opened.mtime_ns),
                **({"Vary": "Accept"} if kind.startswith("text/html") else {}),
            }
            if unchanged(
                etag,
                opened.mtime_ns,
                none_match=request.headers.get("if-none-match"),
                modified_since=request.headers.get("if-modified-since"),
            ):
                return Response(304, b"", headers)
            if opened.size > self._workspace.max_file:
                return text(413, "this file is too large for the preview")
            if opened.size <= _INLINE_READ:
                body = os.pread(opened.fd, opened.size, 0)
            else:
                body = await trio.to_thread.run_sync(os.pread, opened.fd, opened.size, 0)
            return Response(200, injected(body, request.mount, tag) if page else body, headers)
        finally:
            os.close(opened.fd)

    def _tag(self, path: str) -> str | None:
        """What the file of a page has now."""
        try:
            _, opened = self._open(unquote(path, errors="surrogateescape").lstrip("/"))
        except (Refused, IsADirectoryError):
            return None
        os.close(opened.fd)
        return tag_of(opened.size, opened.mtime_ns)

    def _open(self, path: str) -> tuple[str, Opened]:
        """A file, or a folder's index; a folder without its slash raises IsADirectoryError."""
        if not path or path.endswith("/"):
            return "index.html", self._workspace.open(path + "index.html")
        try:
            return path, self._workspace.open(path)
        except Refused:
            index = self._workspace.open(path + "/index.html")
            os.close(index.fd)
            raise IsADirectoryError from None
