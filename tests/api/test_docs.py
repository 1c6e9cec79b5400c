import re
from base64 import b64decode
from hashlib import sha256
from html.parser import HTMLParser

from daemon.api.docs import page
from tests.support import api

VOID = {"meta", "br", "link", "img", "input", "hr"}
IMPLIED = {"p", "tr", "td", "html"}  # tags that may stay open


class Reader(HTMLParser):
    """What a page consists of."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID | IMPLIED:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in IMPLIED:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data + " ")


async def read(daemon):
    async with api(daemon.url) as client:
        response = await client.get("/docs")
        document = (await client.get("/openapi.json")).json()
    assert (response.status_code, response.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    reader = Reader()
    reader.feed(response.text)
    assert reader.open == []
    return response, document, reader


async def test_page_needs_no_script_and_nothing_from_elsewhere(daemon):
    response, _, reader = await read(daemon)
    assert not {"script", "link", "img", "iframe", "object", "base", "form"} & {tag for tag, _ in reader.tags}
    for _, attributes in reader.tags:
        assert not {name for name in attributes if name.startswith("on") or name in {"src", "style", "srcset"}}
        assert (attributes.get("href") or "#").startswith(("#", "/openapi.json"))
    assert not re.search(r"url\(|@import|https?:", response.text)


async def test_page_is_allowed_its_own_style_and_nothing_else(daemon):
    response, _, _ = await read(daemon)
    policy = dict(part.split(" ", 1) for part in response.headers["Content-Security-Policy"].split("; "))
    assert policy.keys() == {"default-src", "style-src", "base-uri", "form-action", "frame-ancestors"}
    assert {policy[name] for name in policy.keys() - {"style-src"}} == {"'none'"}
    found = re.fullmatch(r"'sha256-(.+)'", policy["style-src"])
    style = re.search(r"<style>(.*?)</style>", response.text, re.DOTALL)
    assert found
    assert style
    assert b64decode(found[1]) == sha256(style[1].encode()).digest()


async def test_page_shows_every_operation_and_schema(daemon):
    _, document, reader = await read(daemon)
    text = " ".join("".join(reader.text).split())
    ids = {attributes["id"] for _, attributes in reader.tags if "id" in attributes}
    for path, verbs in document["paths"].items():
        assert path in text
        for one in verbs.values():
            assert one["operationId"] in ids
            assert re.sub(r"\W+", " ", one["summary"]).strip() in re.sub(r"\W+", " ", text)
    assert document["components"]["schemas"].keys() <= ids
    for name, schema in document["components"]["schemas"].items():
        assert schema.get("properties", {}).keys() <= set(re.findall(r"\w+", text)), name
    links = {attributes["href"] for tag, attributes in reader.tags if tag == "a"} - {"/openapi.json"}
    assert {link.removeprefix("#") for link in links} <= ids


def test_page_escapes_what_the_document_says():
    evil = "<script>alert(1)</script> `<b>` & \"'"
    document = {
        "openapi": evil,
        "info": {"title": evil, "version": evil, "description": evil},
        "tags": [{"name": "t", "description": evil}],
        "paths": {
            "/<b>": {
                "get": {
                    "operationId": "o",
                    "tags": ["t"],
                    "summary": evil,
                    "description": evil,
                    "parameters": [{"name": evil, "in": "query", "description": evil, "schema": {"type": "string"}}],
                    "responses": {"200": {"description": evil, "content": {evil: {"schema": {"$ref": "#/" + evil}}}}},
                }
            }
        },
        "components": {
            "schemas": {
                "S": {
                    "description": evil,
                    "properties": {
                        evil: {"type": "string", "pattern": evil, "description": evil},
                        "e": {"enum": [evil], "description": evil},
                        "a": {"anyOf": [{"type": "null"}, {"type": "array", "items": {"type": "string"}}]},
                    },
                },
                "E": {"enum": ["x"], "description": evil},
            }
        },
    }
    made = page(document)
    assert "<script" not in made
    assert "<b>" not in made.replace('<b class="get">', "")
