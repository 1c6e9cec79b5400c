"""Pages: titles and sections, out of whatever markup there is."""

import time
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.workspace.files import Workspace
from daemon.workspace.pages import outline, pages_in


@pytest.fixture
def workspace(tmp_path):
    with closing(Workspace(tmp_path, max_file=8 << 20)) as workspace:
        yield workspace


@pytest.mark.parametrize(
    ("markup", "title"),
    [
        ("<title>One</title>", "One"),
        ("<TITLE lang=en>\n  One \n two </Title >", "One two"),
        ("<title>A &amp; B &lt;3 &#252;</title>", "A & B <3 ü"),
        ("<title>a <b>is text</b></title>", "a <b>is text</b>"),
        ("<title>One</title><svg><title>Two</title></svg>", "One"),
        ("<title></title><title>Two</title>", ""),
        ("<title>never closed", "never closed"),
        ("<!-- <title>no</title> --><title>yes</title>", "yes"),
        ("<script>'<title>no</title>'</script><title>yes</title>", "yes"),
        ("<style>/*<title>no</title>*/</style><title>yes</title>", "yes"),
        ("<titles>no</titles>", ""),
        ("no markup", ""),
        ("", ""),
        ("<title>" + "x" * 500 + "</title>", "x" * 200),
        ("<title>&#" + "1" * 5000 + ";</title>", "\ufffd"),
    ],
)
def test_title_is_found(markup, title):
    assert outline(markup)[0] == title


@pytest.mark.parametrize(
    ("markup", "sections"),
    [
        ("<h1 id=a>One</h1>", {"a": "One"}),
        ("<H2 class='x' ID='a'>One <em>two</em>\n three</H2>", {"a": "One two three"}),
        ("<h2>no anchor</h2>", {}),
        ("<section id=s><h2>One</h2></section>", {"s": "One"}),
        ("<section id=s><h2 id=h>One</h2><h3>Two</h3></section>", {"h": "One", "s": "Two"}),
        ("<div id=d><p>words</p><h3>One</h3></div>", {"d": "One"}),
        ("<p id=p><h2>One</h2>", {}),
        ("<h2 id=a>One<h3 id=b>Two</h3>", {"a": "One", "b": "Two"}),
        ("<h2 id=a>One</h3></h2>", {"a": "One"}),
        ("<h2 id=a>never closed", {"a": "never closed"}),
        ('<h2 title="x > y" id="a">One</h2>', {"a": "One"}),
        ('<h2 title="id=no" data-id="no" id="a">One</h2>', {"a": "One"}),
        ("<h2 id=''>One</h2><h2 id>Two</h2>", {}),
        ("<h2 id = a >One</h2>", {"a": "One"}),
        ("<h2 id='a&amp;b'>1 &lt; 2 < 3</h2>", {"a&b": "1 < 2 < 3"}),
        ("<h2 id=a><!-- <h3> -->One</h2>", {"a": "One"}),
        ("<h2 id=a>One<br/>two</h2>", {"a": "Onetwo"}),
        ("<!doctype html><?php ?></ bogus><h2 id=a>One</h2>", {"a": "One"}),
        ("<textarea><h2 id=no>x</h2></textarea><h2 id=a>One</h2>", {"a": "One"}),
        ("<h2 id=" + "x" * 201 + ">One</h2>", {}),
        ("<h2 id=a>" + "x" * 500 + "</h2>", {"a": "x" * 200}),
        ("<h2 id=a>One</h2><h2 id=b", {"a": "One"}),
        ("<h2 id=a>One</h2><!-- open <h2 id=b>Two</h2>", {"a": "One"}),
    ],
)
def test_sections_are_headings_that_can_be_linked_to(markup, sections):
    assert outline(markup)[1] == [{"id": name, "title": title} for name, title in sections.items()]


def test_sections_have_a_bound():
    markup = "".join(f"<h2 id=s{number}>{number}</h2>" for number in range(60))
    assert [section["id"] for section in outline(markup)[1]] == [f"s{number}" for number in range(50)]


HOSTILE = [
    "<a ", "<a x=", "<a href='", '<a x="', "<a '\">", "<!", "<![", "<!--", "<?", "</", "</a ", "<", "&", "&#", "<title>",
    "<script>", "<script></scrip", "<style></style", "<h1>", "<h1 id=x ", "<h1 =\"'>", "= ", "<a =    ", "\0<", "<aa",
]  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE)
def test_megabyte_of_broken_markup_takes_no_time(piece):
    begun = time.process_time()
    for tail in ("", "'", '">', "-->"):
        outline(piece * (250_000 // len(piece)) + tail)
    assert time.process_time() - begun < 2  # with a parser that tries again: hours


@given(st.lists(st.sampled_from([*HOSTILE, "<h1 id=a>", "</h1>", "<title>", "</title>", "text", ">", "-->", '"', "'"])))
def test_no_markup_breaks_the_outline(pieces):
    title, sections = outline("".join(pieces))
    assert len(title) <= 200
    assert all(len(section["title"]) <= 200 and 0 < len(section["id"]) <= 200 for section in sections)


def test_pages_are_listed_with_the_start_page_first(workspace):
    for path in ("z.html", "a.htm", "index.html", "sub/index.html", "sub/b.html", "style.css", "page.HTML"):
        workspace.write(path, b"<title>T</title><h1 id=top>Top</h1>")
    pages = pages_in(workspace, "https://x/s")
    assert [page["path"] for page in pages] == ["index.html", "a.htm", "z.html", "sub/b.html", "sub/index.html"]
    assert pages[0] == {
        "path": "index.html",
        "title": "T",
        "url": "https://x/s/index.html",
        "sections": [{"id": "top", "title": "Top"}],
    }


def test_page_without_a_title_is_called_by_its_path(workspace):
    workspace.write("a/b.html", b"<p>words</p>")
    assert pages_in(workspace, "http://x")[0]["title"] == "a/b.html"


def test_url_of_a_page_can_be_opened_whatever_its_name(workspace):
    workspace.write("a b/50% #1?.html", b"")
    assert pages_in(workspace, "http://x")[0]["url"] == "http://x/a%20b/50%25%20%231%3F.html"


def test_page_that_is_no_utf8_or_too_large_does_no_harm(workspace):
    workspace.write("latin.html", b"<title>caf\xe9</title>")
    workspace.write("large.html", b"<title>Large</title>" + b" " * (1 << 20))
    assert [page["title"] for page in pages_in(workspace, "http://x")] == ["caf\ufffd"]


def test_pages_have_a_bound(workspace):
    for number in range(105):
        workspace.write(f"{number:03}.html", b"")
    pages = pages_in(workspace, "http://x")
    assert len(pages) == 100
    assert pages[-1]["path"] == "099.html"


def test_link_out_of_the_workspace_is_no_page(workspace, tmp_path):
    (tmp_path / "link.html").symlink_to("/etc/hostname")
    assert pages_in(workspace, "http://x") == []
