"""What a person can open in a workspace: its HTML pages, their titles and their sections; pure but for `pages_in`.

The markup is read once from left to right and nothing is tried twice: `html.parser` takes hours for a megabyte of `<a <a <a`
(CVE-2025-6069) and raises for `<![<!`, and the agent may write either.
"""

import html
import re
from typing import Any
from urllib.parse import quote

from daemon.workspace.files import Refused, Workspace

_HEADINGS = {"h1", "h2", "h3", "h4", "h5", "h6"}
_HOLDERS = {"section", "article", "main", "nav", "header", "footer", "aside", "div"}
_RAW = {"script", "style", "textarea", "title"}  # up to their end tag all is text
_MAX_PAGES = 100
_MAX_PAGE = 1 << 20
_MAX_SECTIONS = 50
_MAX_TEXT = 200  # characters of a title or an id

# Possessive (`*+`): a tag that does not end is given up at once. A `>` in a quoted value does not end it.
_TAG = re.compile(r"<(/?)([a-zA-Z][^\s/>]*+)((?:=\s*\"[^\"]*\"|=\s*'[^']*'|[^>])*+)>")
_ATTRIBUTE = re.compile(r"([^\s=/\"'>]++)(?:\s*+=\s*+(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'>]*+)))?")
_RAW_END = {tag: re.compile(rf"</{tag}(?=[\s/>])", re.IGNORECASE) for tag in _RAW}


class _Outline:
    """A page's title, and the headings that can be linked to: by their own id, or by that of the section they stand in."""

    def __init__(self) -> None:
        self.title = ""
        self.sections: list[dict[str, str]] = []
        self._anchor: str | None = None  # of the section that has no heading yet
        self._heading: str | None = None  # the tag that is open
        self._text: list[str] = []

    def start(self, tag: str, attributes: str) -> None:
        if tag in _HEADINGS:
            self._heading, self._text = tag, []
            self._anchor = _id(attributes) or self._anchor
        elif tag in _HOLDERS:
            self._anchor = _id(attributes) or self._anchor

    def end(self, tag: str) -> None:
        if tag == self._heading:
            if self._anchor and len(self.sections) < _MAX_SECTIONS:
                self.sections.append({"id": self._anchor, "title": _words("".join(self._text))})
            self._heading = self._anchor = None

    def text(self, text: str) -> None:
        if self._heading:
            self._text.append(text)

    def raw(self, tag: str, text: str) -> None:
        if tag == "title" and not self.title:
            self.title = _words(text)


def outline(markup: str) -> tuple[str, list[dict[str, str]]]:
    """The title and the sections `{id, title}` of one page, however broken its markup."""
    page, at = _Outline(), 0
    while (tag_at := markup.find("<", at)) >= 0:
        page.text(markup[at:tag_at])
        if found := _TAG.match(markup, tag_at):
            slash, name, attributes = found[1], found[2].lower(), found[3]
            at = found.end()
            if slash:
                page.end(name)
            elif name in _RAW:
                end = _RAW_END[name].search(markup, at)
                stop = end.start() if end else len(markup)
                page.raw(name, markup[at:stop])
                at = stop
            else:
                page.start(name, attributes)
        elif markup[tag_at + 1 : tag_at + 2] in {"!", "?", "/"}:
            close = "-->" if markup.startswith("<!--", tag_at) else ">"
            closed = markup.find(close, tag_at + 2)
            if closed < 0:
                break  # a comment that never ends
            at = closed + len(close)
        elif markup[tag_at + 1 : tag_at + 2].isalpha() and markup[tag_at + 1 : tag_at + 2].isascii():
            break  # a tag that never ends
        else:
            page.text("<")
            at = tag_at + 1
    return page.title, page.sections


def _id(attributes: str) -> str | None:
    for found in _ATTRIBUTE.finditer(attributes):
        if found[1].lower() == "id":
            value = html.unescape((found[2] or found[3] or found[4] or "")[: _MAX_TEXT + 1])
            return value if len(value) <= _MAX_TEXT else None
    return None


def _words(text: str) -> str:
    """As one short line; cut first, since a character reference with thousands of digits cannot be resolved."""
    return html.unescape(" ".join(text.split())[:1000])[:_MAX_TEXT].strip()


def pages_in(workspace: Workspace, base_url: str) -> list[dict[str, Any]]:
    """The pages of a workspace, `index.html` first; blocks."""
    paths = [path for path in workspace.files() if path.endswith((".html", ".htm"))]
    paths.sort(key=lambda path: (path.count("/"), path != "index.html", path))
    pages = []
    for path in paths[:_MAX_PAGES]:
        try:
            text = workspace.read(path, _MAX_PAGE).decode("utf-8", "replace")
        except Refused:
            continue
        title, sections = outline(text)
        pages.append({"path": path, "title": title or path, "url": f"{base_url}/{quote(path)}", "sections": sections})
    return pages
