from tests.api.calls import JSON, assert_problem, check_schema, ended_session, made
from tests.support import api

ID = "a" * 65

NOT_JSON = {
    "nothing": b"",
    "spaces": b"   ",
    "cut": b'{"message": "x"',
    "two values": b'{"message": "x"} {}',
    "single quotes": b"{'message': 'x'}",
    "a comment": b'{"message": "x"} // hello',
    "a trailing comma": b'{"message": "x",}',
    "NaN": b'{"message": "x", "timeout": NaN}',
    "Infinity": b'{"message": "x", "timeout": Infinity}',
    "a byte order mark": b'\xef\xbb\xbf{"message": "x"}',
    "no UTF-8": b'{"message": "\xff"}',
    "half a surrogate pair": b'{"message": "\\ud800"}',
    "a bare control character": b'{"message": "a\nb"}',
    "UTF-16": '{"message": "x"}'.encode("utf-16"),
    "too deep": b'{"message": "x", "more": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}
NOT_ASKED_FOR = {
    "null": b"null",
    "a list": b"[]",
    "a string": b'"hello"',
    "a number": b"1",
    "an empty object": b"{}",
    "no message": b'{"session_id": "abc"}',
    "message null": b'{"message": null}',
    "message a number": b'{"message": 1}',
    "message a list": b'{"message": ["x"]}',
    "message an object": b'{"message": {"text": "x"}}',
    "message empty": b'{"message": ""}',
    "message blank": b'{"message": " \\n\\t \\u00a0 "}',
    "message too long": b'{"message": "' + b"x" * 100_001 + b'"}',
    "session_id empty": b'{"message": "x", "session_id": ""}',
    "session_id too long": b'{"message": "x", "session_id": "' + ID.encode() + b'"}',
    "session_id a path": b'{"message": "x", "session_id": "../../etc"}',
    "session_id with a dot": b'{"message": "x", "session_id": "a.b"}',
    "session_id with a space": b'{"message": "x", "session_id": "a b"}',
    "session_id with a newline": b'{"message": "x", "session_id": "a\\n"}',
    "session_id with NUL": b'{"message": "x", "session_id": "a\\u0000"}',
    "session_id not ASCII": '{"message": "x", "session_id": "\u0430"}'.encode(),
    "session_id a number": b'{"message": "x", "session_id": 7}',
    "message_id empty": b'{"message": "x", "message_id": ""}',
    "message_id too long": b'{"message": "x", "message_id": "' + b"m" * 129 + b'"}',
    "message_id a number": b'{"message": "x", "message_id": 1}',
    "model empty": b'{"message": "x", "model": ""}',
    "model too long": b'{"message": "x", "model": "' + b"m" * 201 + b'"}',
    "model a list": b'{"message": "x", "model": []}',
    "system too long": b'{"message": "x", "system": "' + b"s" * 100_001 + b'"}',
    "system a number": b'{"message": "x", "system": 1}',
    "approval unknown": b'{"message": "x", "approval": "maybe"}',
    "approval empty": b'{"message": "x", "approval": ""}',
    "approval a truth": b'{"message": "x", "approval": true}',
    "timeout zero": b'{"message": "x", "timeout": 0}',
    "timeout negative": b'{"message": "x", "timeout": -1}',
    "timeout too long": b'{"message": "x", "timeout": 31536001}',
    "timeout beyond a float": b'{"message": "x", "timeout": 1e999}',
    "timeout a string": b'{"message": "x", "timeout": "60"}',
    "timeout a truth": b'{"message": "x", "timeout": true}',
    "token_budget zero": b'{"message": "x", "token_budget": 0}',
    "token_budget negative": b'{"message": "x", "token_budget": -5}',
    "token_budget a fraction": b'{"message": "x", "token_budget": 1.5}',
    "token_budget a string": b'{"message": "x", "token_budget": "10"}',
}
NOT_A_JSON_TYPE = {
    "none": None,
    "text": "text/plain",
    "a form": "application/x-www-form-urlencoded",  # what a page may send anywhere without asking
    "a multipart form": "multipart/form-data; boundary=x",
    "another JSON": "application/problem+json",
    "nearly": "application/jsonx",
    "nothing": "",
    "a parameter that looks like it": "text/plain; application/json",
}
BAD_QUERIES = [
    "/api/sessions?limit=0",
    "/api/sessions?limit=501",
    "/api/sessions?limit=-1",
    "/api/sessions?limit=1.5",
    "/api/sessions?limit=x",
    "/api/sessions?limit=",
    "/api/sessions?limit=99999999999999999999999",
    "/api/sessions?status=gone",
    "/api/sessions?status=running,gone",
    "/api/sessions?status=RUNNING",
    "/api/sessions?cursor=",
    "/api/sessions?cursor=x",
    "/api/sessions?cursor=-1",
    "/api/sessions?cursor=1.5",
    "/api/sessions?cursor=%D9%A1",  # a digit, but not one of ours
    "/api/sessions?cursor=9999999999999999999",
    "/api/sessions/kept?wait=61",
    "/api/sessions/kept?wait=-1",
    "/api/sessions/kept?wait=nan",
    "/api/sessions/kept?wait=inf",
    "/api/sessions/kept?wait=",
    "/api/sessions/kept?wait=soon",
    "/api/sessions/kept/events?offset=-1",
    "/api/sessions/kept/events?offset=x",
    "/api/sessions/kept/events?offset=",
    "/api/sessions/kept/events?offset=1.5",
    f"/api/sessions/kept/events?offset={1 << 53}",
    "/api/sessions/kept/events?limit=0",
    "/api/sessions/kept/events?limit=10001",
    "/api/sessions/kept/events?limit=x",
]


async def refuse_all(daemon, bodies, status):
    async with api(daemon.url) as client:
        before = made(daemon)
        for name, body in bodies.items():
            response = await client.post("/api/chat", content=body, headers=JSON)
            assert response.status_code == status, name
            assert_problem(response, status, "invalid_request")
            assert made(daemon) == before, name


async def test_chat_is_refused_with_400_when_the_body_is_not_json(daemon):
    await refuse_all(daemon, NOT_JSON, 400)


async def test_chat_is_refused_with_422_when_the_body_is_not_what_it_takes(daemon):
    await refuse_all(daemon, NOT_ASKED_FOR, 422)


async def test_chat_is_refused_with_400_when_the_content_type_is_not_json(daemon):
    async with api(daemon.url) as client:
        before = made(daemon)
        for name, content_type in NOT_A_JSON_TYPE.items():
            headers = {} if content_type is None else {"Content-Type": content_type}
            response = await client.post("/api/chat", content=b'{"message": "x"}', headers=headers)
            assert response.status_code == 400, name
            assert "Content-Type" in assert_problem(response, 400, "invalid_request")["detail"]
            assert made(daemon) == before, name


async def test_chat_is_refused_with_413_when_the_body_is_too_large(daemon):
    async with api(daemon.url) as client:
        before = made(daemon)
        for size in (daemon.registry.config.max_body + 1, 4 * daemon.registry.config.max_body):
            response = await client.post("/api/chat", content=b" " * size, headers=JSON)
            assert_problem(response, 413, "payload_too_large")
        assert made(daemon) == before


async def test_chat_is_refused_with_413_when_a_body_of_unknown_length_is_too_large(daemon):
    async def chunks():
        for _ in range(20):
            yield b" " * (1 << 16)

    async with api(daemon.url) as client:
        before = made(daemon)
        response = await client.post("/api/chat", content=chunks(), headers=JSON)
        assert_problem(response, 413, "payload_too_large")
        assert made(daemon) == before


AT_THE_EDGE = [
    ("message", "x" * 100_000),
    ("message", "a\0b \U0001f469\u200d\U0001f4bb \u0627"),
    ("session_id", None),
    ("session_id", "A-z_" * 16),
    ("message_id", "m" * 128),
    ("model", "scripted"),
    ("system", ""),
    ("approval", "auto"),
    ("approval", "ask"),
    ("timeout", 31_536_000),
    ("timeout", 0.5),
    ("token_budget", 1),
    ("something_else", {"of": "a later version"}),
]


async def test_chat_is_accepted_at_the_edge_of_what_it_takes(daemon):
    async with api(daemon.url) as client:
        for field, value in AT_THE_EDGE:
            response = await client.post("/api/chat", json={"message": "go", field: value})
            assert response.status_code == 201, field


async def test_chat_is_accepted_when_its_content_type_is_json_in_other_words(daemon):
    async with api(daemon.url) as client:
        for content_type in ("application/json; charset=utf-8", "Application/JSON"):
            headers = {"Content-Type": content_type}
            response = await client.post("/api/chat", content=b'{"message": "\xc3\xa4"}', headers=headers)
            assert response.status_code == 201, content_type


async def test_query_values_are_refused_with_400_when_they_are_out_of_range(daemon):
    async with api(daemon.url) as client:
        await ended_session(daemon, client, "kept")
        before = made(daemon)
        for path in BAD_QUERIES:
            response = await client.get(path)
            assert response.status_code == 400, path
            assert_problem(response, 400, "invalid_request")
        for query in ("purge=maybe", "purge=", "purge=2"):
            response = await client.delete(f"/api/sessions/kept?{query}")
            assert_problem(response, 400, "invalid_request")
        assert made(daemon) == before


async def test_every_answer_is_what_the_document_says(daemon):
    async with api(daemon.url) as client:
        document = (await client.get("/openapi.json")).json()
        seen = set()

        async def call(method: str, path: str, route: str, **options) -> None:
            response = await client.request(method, path, **options)
            described = document["paths"][route][method.lower()]["responses"][str(response.status_code)]
            content_type = response.headers["Content-Type"].partition(";")[0]
            if content_type.endswith("json"):
                check_schema(response.json(), described["content"][content_type]["schema"], document)
            assert described["content"].keys() & {content_type, "*/*"}
            seen.add((method, route, response.status_code))

        one, chat = "/api/sessions/{session_id}", "/api/chat"
        await call("POST", chat, chat, json={"message": "go", "session_id": "abc", "message_id": "1"})
        await call("POST", chat, chat, json={"message": "go", "session_id": "abc", "message_id": "1"})
        await call("POST", chat, chat, json={"message": ""})
        await call("POST", chat, chat, content=b"{", headers=JSON)
        await call("POST", chat, chat, content=b" " * (2 << 20), headers=JSON)
        await call("POST", chat, chat, json={"message": "go", "model": "claude-sonnet-5-5"})
        await call("GET", "/api/sessions/abc?wait=10", one)
        await call("GET", "/api/sessions/abc?wait=61", one)
        await call("GET", "/api/sessions/nope", one)
        await call("POST", "/api/sessions/abc/interrupt", one + "/interrupt")
        await call("POST", "/api/sessions/nope/interrupt", one + "/interrupt")
        await call("GET", "/api/sessions/abc/events", one + "/events")
        await call("GET", "/api/sessions/nope/events", one + "/events")
        await call("GET", "/api/sessions/abc/events?limit=0", one + "/events")
        (daemon.registry.config.session_dir("abc") / "workspace" / "a.html").write_text("<h1>")
        await call("GET", "/api/sessions/abc/files", one + "/files")
        await call("GET", "/api/sessions/nope/files", one + "/files")
        await call("GET", "/api/sessions/abc/files/a.html", one + "/files/{path}")
        await call("GET", "/api/sessions/abc/files/b.html", one + "/files/{path}")
        await call("GET", "/api/sessions/abc/archive", one + "/archive")
        await call("GET", "/api/sessions/nope/archive", one + "/archive")
        await call("GET", "/api/sessions", "/api/sessions")
        await call("GET", "/api/sessions?limit=0", "/api/sessions")
        await call("DELETE", "/api/sessions/abc", one)
        await call("GET", "/api/sessions/abc", one)
        await call("DELETE", "/api/sessions/nope", one)
        for path in ("/health", "/metrics", "/openapi.json", "/docs", "/"):
            await call("GET", path, path)
        await call("GET", "/health", "/health", headers={"Host": "evil.example"})
        await call("GET", "/health", "/health", headers={"X-Forwarded-For": "10.0.0.1"})
        assert {("POST", chat, status) for status in (200, 201, 400, 413, 422, 503)} <= seen
        assert {(method, route) for method, route, _ in seen} == {
            (verb.upper(), path) for path, verbs in document["paths"].items() for verb in verbs
        }
