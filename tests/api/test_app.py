import pytest
import trio

from daemon.testing import open_test_daemon
from tests.api.calls import JSON, assert_problem, holding, made
from tests.support import api

PAGE = "https://app.example"
ROUTES = {
    "/api/chat": {"POST"},
    "/api/sessions": {"GET"},
    "/api/sessions/abc": {"GET", "DELETE"},
    "/api/sessions/abc/interrupt": {"POST"},
    "/api/sessions/abc/events": {"GET"},
    "/health": {"GET"},
    "/metrics": {"GET"},
    "/openapi.json": {"GET"},
    "/docs": {"GET"},
    "/": {"GET"},
}


@pytest.fixture
async def strict(tmp_path):
    """A daemon with a token and a page elsewhere that may call it."""
    with trio.fail_after(30):
        settings = {
            **holding(tmp_path),
            "api_token": "secret",
            "allow_origin": (PAGE,),
            "allow_host": ("demo.example",),
        }
        async with open_test_daemon(tmp_path / "state", **settings) as daemon, api(daemon.url) as client:
            yield daemon, client


UNKNOWN = [
    "/nope",
    "/api",
    "/api/",
    "/api/chat/",
    "/api/sessions/",
    "/api/sessions/a/b",
    "/api//sessions",
    "/API/sessions",
    "/static/app.js",
    "/redocs",
    "/scalar",
    "/api/sessions/a%2Fb",
    "/favicon.ico",
]


async def test_unknown_route_is_not_found(daemon):
    async with api(daemon.url) as client:
        before = made(daemon)
        for path in UNKNOWN:
            for method in ("GET", "POST", "DELETE"):
                response = await client.request(method, daemon.url + path, content=b"{}", headers=JSON)
                assert response.status_code == 404, (method, path)
                assert_problem(response, 404, "not_found")
        assert made(daemon) == before


async def test_wrong_method_is_refused_with_those_that_are_allowed(daemon):
    async with api(daemon.url) as client:
        before = made(daemon)
        for path, methods in ROUTES.items():
            allowed = methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
            for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW"} - allowed:
                response = await client.request(method, path)
                assert response.status_code == 405, (method, path)
                if method != "HEAD":
                    assert_problem(response, 405, "method_not_allowed")
                assert response.headers["Allow"] == ", ".join(sorted(allowed)), path
        assert made(daemon) == before


async def test_files_beside_which_the_daemon_was_started_are_not_served(tmp_path, monkeypatch):
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "secret.txt").write_text("secret")
    monkeypatch.chdir(tmp_path)
    with trio.fail_after(30):
        async with open_test_daemon(tmp_path / "state") as daemon, api(daemon.url) as client:
            assert_problem(await client.get("/static/secret.txt"), 404, "not_found")


async def test_failure_of_ours_is_a_problem_without_a_traceback(daemon, capsys):
    async with api(daemon.url) as client:
        daemon.registry._store.close()
        problem = assert_problem(await client.get("/api/sessions"), 500, "internal_error")
        assert "closed" not in str(problem).lower()
        assert (await client.get("/health")).status_code == 200


async def test_answers_have_headers_that_keep_browsers_from_guessing_and_framing(daemon):
    async with api(daemon.url) as client:
        answers = [await client.get(path) for path in [*ROUTES, "/nope"]]
    for headers in [answer.headers for answer in answers]:
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert "Server" not in headers
        assert "Access-Control-Allow-Origin" not in headers


# --- who may call, over real sockets; the rules themselves are in test_guard.py


FAR = {"X-Forwarded-For": "10.1.2.3"}
REFUSED = [
    ({"Host": "evil.example"}, 403, "forbidden_host"),
    ({"Host": "localhost.evil.example:8000"}, 403, "forbidden_host"),
    ({"Origin": "https://evil.example"}, 403, "forbidden_origin"),
    ({"Origin": "null"}, 403, "forbidden_origin"),
    ({"Origin": "http://127.0.0.1"}, 403, "forbidden_origin"),
    *[
        ({name: "10.1.2.3"}, 401, "unauthorized")
        for name in ("X-Forwarded-For", "Forwarded", "X-Real-IP", "Via", "X-Forwarded-Host", "X-Forwarded-Proto")
    ],
    ({"X-Forwarded-For": "127.0.0.1"}, 401, "unauthorized"),
    ({**FAR, "Authorization": "Bearer wrong"}, 401, "unauthorized"),
    ({**FAR, "Authorization": "Basic secret"}, 401, "unauthorized"),
    ({**FAR, "Authorization": "secret"}, 401, "unauthorized"),
    ({**FAR, "Authorization": "Bearer"}, 401, "unauthorized"),
]


async def test_caller_who_may_not_is_refused(strict):
    _, client = strict
    for headers, status, code in REFUSED:
        response = await client.get("/health", headers=headers)
        assert response.status_code == status, headers
        assert_problem(response, status, code)
        assert ("WWW-Authenticate" in response.headers) == (status == 401)


async def test_caller_who_may_not_is_refused_everywhere_before_anything_is_made(strict):
    daemon, client = strict
    before = made(daemon)
    for headers, status in (({"Host": "evil.example"}, 403), ({"Origin": "null"}, 403), (FAR, 401)):
        for path, methods in [*ROUTES.items(), ("/nope", {"GET"})]:
            for method in methods:
                body = {"message": "x", "session_id": "abc"} if method == "POST" else None
                response = await client.request(method, path, json=body, headers=headers)
                assert response.status_code == status, (method, path, headers)
    assert made(daemon) == before


async def test_caller_who_may_is_let_in(strict):
    _, client = strict
    for headers in (
        {},
        {"Host": "localhost"},
        {"Host": "demo.example:443"},
        {**FAR, "Authorization": "Bearer secret"},
        {**FAR, "Authorization": "bearer  secret"},
        {"Host": "demo.example", "Origin": "https://demo.example"},
        {"Origin": PAGE},
    ):
        assert (await client.get("/health", headers=headers)).status_code == 200, headers


async def test_caller_without_a_host_is_refused(daemon):
    port = int(daemon.url.rpartition(":")[2])
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"GET /health HTTP/1.0\r\n\r\n")
        answer = b""
        async for data in stream:
            answer += data
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"forbidden_host" in answer


async def test_preflight_of_an_allowed_page_is_answered_without_a_token(strict):
    daemon, client = strict
    before = made(daemon)
    asks = {"Origin": PAGE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    for extra in ({}, {"X-Forwarded-For": "10.1.2.3"}):
        response = await client.options("/api/chat", headers=asks | extra)
        assert (response.status_code, response.content) == (204, b"")
        assert response.headers["Access-Control-Allow-Origin"] == PAGE
        assert response.headers["Vary"] == "Origin"
        assert {"POST", "GET", "DELETE"} <= set(response.headers["Access-Control-Allow-Methods"].split(", "))
        headers = response.headers["Access-Control-Allow-Headers"].lower().split(", ")
        assert {"authorization", "content-type", "last-event-id"} <= set(headers)
        assert int(response.headers["Access-Control-Max-Age"]) > 0
        assert "Access-Control-Allow-Credentials" not in response.headers
    assert made(daemon) == before


async def test_preflight_of_another_page_is_refused(strict):
    _, client = strict
    for origin in ("https://evil.example", "null", PAGE + ":8443", PAGE + ".evil.example"):
        asks = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        response = await client.options("/api/chat", headers=asks)
        assert_problem(response, 403, "forbidden_origin")
        assert "Access-Control-Allow-Origin" not in response.headers
        assert response.headers["Vary"] == "Origin"


async def test_allowed_page_may_read_answers_and_refusals(strict):
    _, client = strict
    made_one = await client.post("/api/chat", json={"message": "go"}, headers={"Origin": PAGE})
    refused = await client.post("/api/chat", json={"message": ""}, headers={"Origin": PAGE})
    unauthorized = await client.get("/health", headers={"Origin": PAGE, "X-Forwarded-For": "10.1.2.3"})
    assert [one.status_code for one in (made_one, refused, unauthorized)] == [201, 422, 401]
    for response in (made_one, refused, unauthorized):
        assert response.headers["Access-Control-Allow-Origin"] == PAGE
        assert "Retry-After" in response.headers["Access-Control-Expose-Headers"]


async def test_own_page_needs_no_cors(daemon):
    async with api(daemon.url) as client:
        response = await client.post("/api/chat", json={"message": "go"}, headers={"Origin": daemon.url})
        assert response.status_code == 201
        assert "Access-Control-Allow-Origin" not in response.headers
