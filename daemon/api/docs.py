"""The OpenAPI document as a page that needs no script and nothing from elsewhere; pure."""

from base64 import b64encode
from collections.abc import Iterable
from hashlib import sha256
from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { max-width: 54rem; margin: 3rem auto; padding: 0 1.25rem; font: 16px/1.5 system-ui, sans-serif; }
h2 { margin-top: 3rem; } h2 + p { margin-top: -.75rem; }
article { border: 1px solid var(--line); border-radius: .6rem; padding: .75rem 1rem; margin: .75rem 0; }
h3 { margin: 0; font: 600 1rem ui-monospace, monospace; overflow-wrap: anywhere; }
h3 b { display: inline-block; min-width: 4.5em; } b.post { color: #1a8f4a; } b.delete { color: #c8372d; } b.get { color: #2b6fd6; }
p { margin: .4rem 0; } table { border-collapse: collapse; width: 100%; font-size: .9rem; } td { padding: .3rem .75rem .3rem 0; vertical-align: top; border-top: 1px solid var(--line); }
td:first-child { white-space: nowrap; } code { font: .9em ui-monospace, monospace; background: var(--soft); border-radius: .25rem; padding: .1em .3em; }
summary { cursor: pointer; padding: .25rem 0; } a { color: inherit; }
"""
POLICY = (
    f"default-src 'none'; style-src 'sha256-{b64encode(sha256(_STYLE.encode()).digest()).decode()}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def _prose(text: str) -> str:
    """Text with `code` in it."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if number % 2 else part for number, part in enumerate(parts))


def _type(schema: dict[str, Any]) -> str:
    """A schema in a few words."""
    if name := schema.get("$ref", "").rpartition("/")[2]:
        return f'<a href="#{escape(name)}">{escape(name)}</a>'
    said = f": {_prose(schema['description'])}" if "description" in schema else ""
    if choices := schema.get("anyOf"):
        return " or ".join(map(_type, choices)) + said
    if choices := schema.get("enum"):
        return " or ".join(_prose(f"`{choice}`") for choice in choices) + said
    limits = [
        f", {name} `{value}`" for name, value in schema.items() if name.startswith(("min", "max", "excl", "patt"))
    ]
    inner = f" of {_type(schema['items'])}" if schema.get("items") else ""
    return f"{escape(schema.get('type', 'anything'))}{inner}{_prose(''.join(limits))}{said}"


def _table(rows: Iterable[tuple[str, str]]) -> str:
    return f"<table>{''.join(f'<tr><td>{_prose(name)}<td>{said}' for name, said in rows)}</table>"


def _bodies(content: dict[str, Any]) -> str:
    return "".join(f"<br>{escape(kind)}: {_type(body['schema'])}" for kind, body in content.items())


def _operation(path: str, verb: str, one: dict[str, Any]) -> str:
    takes = [(f"`{given['name']}` {given['in']}", _type(given["schema"] | given)) for given in one["parameters"]]
    if "requestBody" in one:
        takes.append(("body", _bodies(one["requestBody"]["content"]).removeprefix("<br>")))
    gives = [
        (f"`{status}`", _prose(of["description"]) + _bodies(of["content"])) for status, of in one["responses"].items()
    ]
    return (
        f'<article id="{one["operationId"]}"><h3><b class="{verb}">{verb.upper()}</b> {escape(path)}</h3>'
        f"<p>{_prose(one['summary'])}<p>{_prose(one['description'])}{_table(takes)}"
        f"<details><summary>Answers</summary>{_table(gives)}</details></article>"
    )


def page(document: dict[str, Any]) -> str:
    """The document as HTML."""
    info, parts = document["info"], []
    for group in document["tags"]:
        parts.append(f"<h2>{escape(group['name'].capitalize())}</h2><p>{_prose(group['description'])}")
        for path, verbs in document["paths"].items():
            parts += [_operation(path, verb, one) for verb, one in verbs.items() if group["name"] in one["tags"]]
    parts.append("<h2>Schemas</h2><p>What the bodies hold")
    for name, schema in sorted(document["components"]["schemas"].items()):
        fields = [(f"`{field}`", _type(of)) for field, of in schema.get("properties", {}).items()]
        said = _prose(schema["description"]) if fields else _type(schema)
        parts.append(f'<article id="{escape(name)}"><h3>{escape(name)}</h3><p>{said}{_table(fields)}</article>')
    title = f"{info['title']} {info['version']}"
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style><h1>{escape(title)}</h1><p>{_prose(info['description'])}"
        f'<p><a href="/openapi.json">OpenAPI {escape(document["openapi"])}</a>{"".join(parts)}'
    )
