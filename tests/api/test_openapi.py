import re

from tests.api.calls import check_schema, resolve
from tests.support import api

# Every route of the contract that exists, with all the statuses it may answer.
EVERYWHERE = {"401", "403"}
OPERATIONS = {
    ("post", "/api/chat"): {"200", "201", "400", "408", "413", "422", "429", "503"},
    ("get", "/api/sessions/{session_id}"): {"200", "400", "404"},
    ("get", "/api/sessions"): {"200", "400"},
    ("delete", "/api/sessions/{session_id}"): {"200", "400", "404"},
    ("post", "/api/sessions/{session_id}/interrupt"): {"200", "404"},
    ("get", "/api/sessions/{session_id}/events"): {"200", "400", "404"},
    ("get", "/api/sessions/{session_id}/files"): {"200", "404"},
    ("get", "/api/sessions/{session_id}/files/{path}"): {"200", "404"},
    ("get", "/api/sessions/{session_id}/archive"): {"200", "404", "413"},
    ("get", "/health"): {"200"},
    ("get", "/metrics"): {"200"},
    ("get", "/openapi.json"): {"200"},
    ("get", "/docs"): {"200"},
    ("get", "/"): {"200"},
}


async def document_of(daemon):
    async with api(daemon.url) as client:
        response = await client.get("/openapi.json")
        assert (response.status_code, response.headers["Content-Type"]) == (200, "application/json")
        return response.json()


def operations(document):
    return {(verb, path): one for path, verbs in document["paths"].items() for verb, one in verbs.items()}


def references(node):
    if isinstance(node, dict):
        for name, value in node.items():
            if name == "$ref":
                yield value
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


async def test_document_has_every_route_with_every_status(daemon):
    document = await document_of(daemon)
    assert {key: set(one["responses"]) - EVERYWHERE for key, one in operations(document).items()} == OPERATIONS
    assert all(set(one["responses"]) >= EVERYWHERE for one in operations(document).values())


async def test_document_describes_every_operation(daemon):
    document = await document_of(daemon)
    assert document["openapi"].startswith("3.1")
    assert document["info"]["title"] == "footlight"
    tags = {tag["name"] for tag in document["tags"] if tag["description"]}
    names = set()
    for one in operations(document).values():
        assert re.fullmatch(r"[A-Z].+\.", one["summary"])
        assert set(one["tags"]) <= tags
        names.add(one["operationId"])
        for response in one["responses"].values():
            assert response["description"]
        for parameter in one["parameters"]:
            assert parameter.get("description") or parameter["schema"].get("description"), parameter
    assert len(names) == len(OPERATIONS)


async def test_document_describes_refusals_as_problems(daemon):
    for one in operations(await document_of(daemon)).values():
        for status, response in one["responses"].items():
            if status >= "400":
                assert response["content"] == {
                    "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
                }
            if status in {"429", "503"}:
                assert "Retry-After" in response["headers"]


async def test_document_names_what_a_path_and_a_body_take(daemon):
    document = await document_of(daemon)
    for (_, path), one in operations(document).items():
        inside = {parameter["name"] for parameter in one["parameters"] if parameter["in"] == "path"}
        assert inside == set(re.findall(r"{(\w+)}", path))
    body = operations(document)["post", "/api/chat"]["requestBody"]
    assert body["required"] is True
    asked = resolve(body["content"]["application/json"]["schema"]["$ref"], document)
    assert asked["required"] == ["message"]
    assert asked["properties"].keys() == {
        *("message", "session_id", "message_id", "model", "system", "approval", "timeout", "token_budget")
    }


async def test_document_refers_only_to_what_it_holds(daemon):
    document = await document_of(daemon)
    found = set(references(document))
    assert found
    for reference in found:
        assert isinstance(resolve(reference, document), dict)
    assert {reference.rpartition("/")[2] for reference in found} == document["components"]["schemas"].keys()


async def test_document_says_that_a_token_is_optional(daemon):
    document = await document_of(daemon)
    assert document["security"] == [{}, {"bearer": []}]
    assert document["components"]["securitySchemes"]["bearer"] == {"type": "http", "scheme": "bearer"}


async def test_stream_is_described_beside_the_page(daemon):
    one = operations(await document_of(daemon))["get", "/api/sessions/{session_id}/events"]
    assert one["responses"]["200"]["content"].keys() == {"application/json", "text/event-stream"}
    assert "last-event-id" in {parameter["name"] for parameter in one["parameters"] if parameter["in"] == "header"}


async def test_schema_check_finds_what_is_wrong(daemon):
    """The check that other tests lean on can fail."""
    document = await document_of(daemon)
    schema = {"$ref": "#/components/schemas/Problem"}
    good = {"title": "Not found", "status": 404, "code": "not_found"}
    check_schema(good, schema, document)
    for bad in ([], {**good, "status": "404"}, {**good, "status": True}, {"title": "x"}, {**good, "more": 1}):
        try:
            check_schema(bad, schema, document)
        except AssertionError:
            continue
        raise AssertionError(f"{bad} passes")
