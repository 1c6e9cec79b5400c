"""What the tests of the API share: looking at refusals, following an event stream, scripts, checking JSON against its schema."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import h11
import httpx2
import msgspec
import trio

from daemon.main import Daemon

JSON = {"Content-Type": "application/json"}

# `hold…` is worked on until somebody ends it, `go…` is answered at once.
HOLDING = """\
name = "holding"

[[turn]]
pattern = "^hold"

[[turn.step]]
text = "One moment."
fault = { kind = "silence", after = 3 }

[[turn]]

[[turn.step]]
text = "Done."
"""


def holding(folder: Path) -> dict[str, Any]:
    """Settings of a daemon whose model plays `HOLDING`."""
    path = folder / "holding.toml"
    path.write_text(HOLDING)
    return {"script": path}


def assert_problem(response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """The response is a refusal as RFC 9457 and the contract have it."""
    assert (response.status_code, response.headers["Content-Type"]) == (status, "application/problem+json")
    problem = response.json()
    assert problem.keys() <= {"type", "title", "status", "detail", "code"}
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["title"]
    assert problem["detail"]
    assert "Traceback" not in response.text
    return dict(problem)


def made(daemon: Daemon) -> tuple[Any, ...]:
    """All that a request may leave behind: sessions alive (each a task), sessions kept, folders."""
    registry = daemon.registry
    folders = registry.config.state_dir / "sessions"
    return (
        {name: registry.counts()[name] for name in ("sessions", "created", "queued_prompts")},
        registry.statuses(),
        sorted(path.name for path in folders.iterdir()) if folders.exists() else [],
    )


class Stream:
    """A stream of server-sent events on a socket of its own, so that it can be left at any moment."""

    def __init__(self, socket: trio.SocketStream) -> None:
        self.socket = socket
        self.comments = 0
        self.response: h11.Response
        self._http = h11.Connection(h11.CLIENT)
        self._text = b""

    async def ask(self, path: str, headers: dict[str, str]) -> None:
        request = h11.Request(method="GET", target=path, headers=[("Host", "127.0.0.1"), *headers.items()])
        await self.socket.send_all((self._http.send(request) or b"") + (self._http.send(h11.EndOfMessage()) or b""))
        self.response = await self._event()

    async def next(self) -> tuple[int | None, dict[str, Any]] | None:
        """The next event with its id, or None at the end."""
        at = None
        while True:
            while b"\n\n" not in self._text:
                event = await self._event()
                if isinstance(event, h11.EndOfMessage):
                    assert not self._text, "the stream ended in the middle of an event"
                    return None
                self._text += event.data
            block, _, self._text = self._text.partition(b"\n\n")
            fields = dict(line.split(b": ", 1) for line in block.splitlines())
            if b"data" in fields:
                at = int(fields[b"id"]) if b"id" in fields else None
                return at, msgspec.json.decode(fields[b"data"])
            self.comments += 1

    async def until(self, kind: str) -> list[tuple[int | None, dict[str, Any]]]:
        """Everything up to and with the first event of a kind."""
        found = []
        while (event := await self.next()) is not None:
            found.append(event)
            if event[1]["event"] == kind:
                return found
        raise AssertionError(f"the stream ended without {kind}")

    async def rest(self) -> list[tuple[int | None, dict[str, Any]]]:
        """Everything until the end."""
        found = []
        while (event := await self.next()) is not None:
            found.append(event)
        return found

    async def _event(self) -> Any:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self.socket.receive_some(65536))
        return event


@asynccontextmanager
async def follow(daemon: Daemon, session_id: str, query: str = "", **headers: str) -> AsyncIterator[Stream]:
    """A session's events as a stream; leaving closes the socket."""
    given = {"Accept": "text/event-stream", **{name.replace("_", "-"): value for name, value in headers.items()}}
    async with await trio.open_tcp_stream("127.0.0.1", port_of(daemon)) as socket:
        stream = Stream(socket)
        await stream.ask(f"/api/sessions/{session_id}/events{query}", given)
        assert stream.response.status_code == 200
        assert (b"content-type", b"text/event-stream") in stream.response.headers
        yield stream


async def wait_for(daemon: Daemon, session_id: str, kind: str, after: int = 0) -> None:
    """Return when a session's journal has an event of this kind."""
    async with follow(daemon, session_id, f"?offset={after}") as stream:
        await stream.until(kind)


async def ended_session(daemon: Daemon, client: httpx2.AsyncClient, session_id: str, message: str = "go") -> list[Any]:
    """Run a session for one turn and end it; its journal."""
    response = await client.post("/api/chat", json={"message": message, "session_id": session_id})
    assert response.is_success, response.text
    await wait_for(daemon, session_id, "turn_complete")
    await client.delete(f"/api/sessions/{session_id}")
    return list((await client.get(f"/api/sessions/{session_id}/events")).json()["events"])


def port_of(daemon: Daemon) -> int:
    return int(daemon.url.rpartition(":")[2])


def head(method: str, path: str, *lines: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *lines, "", ""]).encode()


async def read_until(stream: trio.SocketStream, end: bytes) -> bytes:
    """Bytes up to and with `end`; what there is where the peer closes first."""
    data = b""
    while end not in data:
        more = await stream.receive_some(65536)
        if not more:
            break
        data += more
    return data


# --- JSON Schema, as much of it as the document uses: a keyword that is not known here fails


_ANNOTATIONS = {"title", "description", "default", "$ref"}
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def check_schema(value: Any, schema: dict[str, Any], document: dict[str, Any], at: str = "$") -> None:
    """Raise AssertionError where a value is not what its schema says."""
    if "$ref" in schema:
        check_schema(value, resolve(schema["$ref"], document), document, at)
    for keyword, limit in schema.items():
        if keyword == "type":
            assert isinstance(value, _TYPES[limit]), f"{at}: {value!r} is no {limit}"
            assert limit == "boolean" or not isinstance(value, bool), f"{at}: {value!r} is no {limit}"
        elif keyword == "anyOf":
            assert any(_fits(value, choice, document) for choice in limit), f"{at}: {value!r} fits none of {limit}"
        elif keyword == "enum":
            assert value in limit, f"{at}: {value!r} is none of {limit}"
        elif keyword == "properties":
            assert isinstance(value, dict)
            for name in value.keys() & limit.keys():
                check_schema(value[name], limit[name], document, f"{at}.{name}")
            assert value.keys() <= limit.keys(), f"{at}: {value.keys() - limit.keys()} are not in the document"
        elif keyword == "required":
            assert value.keys() >= set(limit), f"{at}: {set(limit) - value.keys()} are missing"
        elif keyword == "items":
            for number, item in enumerate(value):
                check_schema(item, limit, document, f"{at}[{number}]")
        elif keyword == "pattern":
            assert re.search(limit, value), f"{at}: {value!r} does not match {limit}"
        else:
            assert keyword in _ANNOTATIONS, f"{at}: {keyword} is not known to this check"


def resolve(reference: str, document: dict[str, Any]) -> dict[str, Any]:
    found = document
    for name in reference.removeprefix("#/").split("/"):
        found = found[name]
    return found


def _fits(value: Any, schema: dict[str, Any], document: dict[str, Any]) -> bool:
    try:
        check_schema(value, schema, document)
    except AssertionError:
        return False
    return True
