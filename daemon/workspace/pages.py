"""What a person can open in a workspace: its HTML pages, their titles and their sections; pure but for `pages_in`."""

from html.parser import HTMLParser
from typing import Any

from daemon.workspace.files import Refused, Workspace

_HEADINGS = {"h1", "h2", "h3", "h4", "h5", "h6"}
_MAX_PAGES = 100
_MAX_PAGE = 1 << 20
_MAX_SECTIONS = 50


class _Outline(HTMLParser):
    """A page's title, and the headings that can be linked to: by their own id, or by that of the section they stand in."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.title = ""
        self.sections: list[dict[str, str]] = []
        self._anchor: str | None = None  # of the section that has no heading yet
        self._heading: str | None = None  # the tag that is open
        self._text: list[str] = []
        self._in_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        anchor = dict(attrs).get("id")
        if tag == "title" and not self.title:
            self._in_title = True
        elif tag in _HEADINGS:
            self._heading, self._text = tag, []
            self._anchor = anchor or self._anchor
        elif tag in {"section", "article", "main", "nav", "header", "footer", "aside", "div"} and anchor:
            self._anchor = anchor

    def handle_endtag(self, tag: str) -> None:
        if tag == "title":
            self._in_title = False
        elif tag == self._heading:
            if self._anchor and len(self.sections) < _MAX_SECTIONS:
                self.sections.append({"id": self._anchor, "title": " ".join("".join(self._text).split())[:200]})
            self._heading = self._anchor = None

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title = " ".join((self.title + data).split())[:200]
        elif self._heading:
            self._text.append(data)


def outline(html: str) -> tuple[str, list[dict[str, str]]]:
    """The title and the sections `{id, title}` of one page, however broken its markup."""
    parser = _Outline()
    parser.feed(html)
    parser.close()
    return parser.title, parser.sections


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
        pages.append({"path": path, "title": title or path, "url": f"{base_url}/{path}", "sections": sections})
    return pages
