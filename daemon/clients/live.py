"""What keeps open pages of a preview up to date: a script in each, and its two questions below a reserved path.

The script is in what a browser is sent as a page, never in the files. It asks whether they have changed, which is answered
when they have; and it tells what goes wrong in the page.
"""

import re
from hashlib import sha256
from pathlib import Path
from urllib.parse import unquote

import trio

from daemon.clients.http import Request, Response, json, text
from daemon.journal.journal import Journal
from daemon.workspace.files import Workspace
from daemon.workspace.visits import Full, PageError

RESERVED = "/.footlight/"
_SCRIPT = (Path(__file__).parent / "live.js").read_bytes()
VERSION = sha256(_SCRIPT).hexdigest()[:8]
# Before the first script of the page, and after its doctype, without which it would be shown by the rules of the nineties.
_ATTRIBUTES = rb"""(?:[^>"']|"[^"]*"|'[^']*')*+>"""
_PROLOGUE = re.compile(
    rb"(?:\xef\xbb\xbf)?+(?:\s|<!--.*?-->)*+(?:<!doctype[^>]*+>)?+(?:\s|<!--.*?-->)*+"
    rb"(?:<html(?=[\s>])" + _ATTRIBUTES + rb")?+(?:\s|<!--.*?-->)*+(?:<head(?=[\s>])" + _ATTRIBUTES + rb")?+",
    re.IGNORECASE | re.DOTALL,
)


def injected(page: bytes, mount: str, tag: str) -> bytes:
    """A page with the script; `tag` is its file's, so that the script knows what it is in."""
    script = f'<script src="{mount}{RESERVED}live.js?v={VERSION}" data-tag="{tag}"></script>'.encode()
    found = _PROLOGUE.match(page)
    place = found.end() if found is not None else 0
    return page[:place] + script + page[place:]


class Live:
    """Answers the script in the pages of one session, for who may see them."""

    def __init__(self, journal: Journal, workspace: Workspace, *, wait: float) -> None:
        self._journal = journal
        self._visits = workspace.visits
        self._wait = wait  # seconds that a question may stay open

    async def respond(self, request: Request, tag: str | None) -> Response:
        """What a request below the reserved path gets; `tag` is what the file of the page that asks has now."""
        match request.path.removeprefix(RESERVED), request.method:
            case "live.js", "GET" | "HEAD":
                return Response(
                    200,
                    _SCRIPT,
                    {"Content-Type": "text/javascript; charset=utf-8", "Cache-Control": "private, max-age=86400"},
                )
            case "live", "GET" | "HEAD":
                return await self._changed(request, tag)
            case "error", "POST":
                return self._error(request)
        return text(404, "no such file")

    async def _changed(self, request: Request, tag: str | None) -> Response:
        visits = self._visits
        if "version" not in request.query:
            return json({"version": visits.version, "changed": tag != request.query.get("tag")})
        known = _number(request.query["version"])
        try:
            with trio.move_on_after(self._wait):
                await visits.wait_change(known)
        except Full:
            return text(429, "too many pages are open", Retry_After="30")
        return json({"version": visits.version, "changed": visits.version != known})

    def _error(self, request: Request) -> Response:
        said = request.query
        if not said.get("message", "").strip():
            return text(400, "an error has a message")
        where = (_number(said.get("line", "")), _number(said.get("column", "")))
        path = unquote(said.get("path", ""), errors="replace")
        error = PageError(f"/{path}", said["message"], said.get("source", ""), *where)
        if not self._journal.ended and (news := self._visits.note(error)) is not None:
            self._journal.append("preview_error", **news._asdict())
        return Response(204)


def _number(text: str) -> int:
    """A number from a query; what is none counts as 0."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else 0
