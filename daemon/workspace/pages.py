"""What a person can open in a workspace: its HTML pages, their titles and their sections; pure but for `pages_in`.

Read by Lexbor, an HTML5 parser: the standard library's takes hours for a megabyte of `<a <a <a` (CVE-2025-6069) and raises for
`<![<!`, and an agent may write either.
"""

import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from daemon.workspace.files import Refused, Workspace

if TYPE_CHECKING:
    from selectolax.lexbor import LexborNode

_MAX_PAGES = 100
_MAX_PAGE = 256 * 1024  # bytes
_MAX_TAGS = 2000  # HTML's own rules make a parser look up all open elements for each tag: time grows with the square
_MAX_SECONDS = 1.0  # for the pages of a workspace; those that are left are listed by their path
_MAX_SECTIONS = 50
_MAX_TEXT = 200  # characters of a title or an id
_MAX_CLIMB = 4  # elements between a heading and the section that it names
_HOLDERS = {"section", "article", "main", "nav", "header", "footer", "aside", "div"}


def outline(markup: str) -> tuple[str, list[dict[str, str]]]:
    """The title and the sections `{id, title}` of one page, however broken its markup.

    A section is a heading that can be linked to: by its own id, or by that of the element it is the first heading of.
    """
    if markup.count("<") - markup.count("</") > _MAX_TAGS:
        return "", []
    from selectolax.lexbor import LexborHTMLParser  # noqa: PLC0415  # 2 MB that a start does without

    page = LexborHTMLParser(markup)
    title = page.css_first("title")
    sections: list[dict[str, str]] = []
    taken: set[str] = set()
    for heading in page.css("h1, h2, h3, h4, h5, h6"):
        anchor = _anchor(heading, taken)
        if anchor is not None and len(sections) < _MAX_SECTIONS:
            taken.add(anchor)
            sections.append({"id": anchor, "title": _words(heading.text())})
    return (_words(title.text()) if title is not None else ""), sections


def _anchor(heading: "LexborNode", taken: set[str]) -> str | None:
    node: LexborNode | None = heading
    for _ in range(_MAX_CLIMB):
        if node is None:
            return None
        anchor = node.attributes.get("id")
        if anchor and len(anchor) <= _MAX_TEXT and (node is heading or (node.tag in _HOLDERS and anchor not in taken)):
            return anchor
        node = node.parent
    return None


def _words(text: str) -> str:
    return " ".join(text.split())[:_MAX_TEXT].strip()


def pages_in(workspace: Workspace, base_url: str) -> list[dict[str, Any]]:
    """The pages of a workspace, `index.html` first; blocks."""
    paths = [path for path in workspace.files() if path.endswith((".html", ".htm"))]
    paths.sort(key=lambda path: (path.count("/"), path != "index.html", path))
    pages, late = [], time.monotonic() + _MAX_SECONDS
    for path in paths[:_MAX_PAGES]:
        try:
            text = workspace.read(path, _MAX_PAGE).decode("utf-8", "replace")
        except Refused:
            continue
        title, sections = outline(text) if time.monotonic() < late else ("", [])
        pages.append({"path": path, "title": title or path, "url": f"{base_url}/{quote(path)}", "sections": sections})
    return pages
