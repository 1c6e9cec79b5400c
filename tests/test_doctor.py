"""What the doctor finds: a line for each thing, what to do, and the exit code."""

import json
import os

import msgspec
import pytest
import trio

from daemon.clients import http
from daemon.doctor import State, run_doctor
from daemon.testing import test_config as make_config
from tests.standins.cloud import open_cloud
from tests.support import leftovers
from tests.system.processes import FOOTLIGHT, environment
from tests.tunnel.conformance import Answering, answering


@pytest.fixture(autouse=True)
def _no_ngrok(monkeypatch, tmp_path):
    """None of the machine's own."""
    for name in ("PYNGROK_NGROK_PATH", "NGROK_AUTHTOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", os.defpath)


async def examined(folder, **settings):
    """The exit code, and the findings by their names."""
    findings = []
    with trio.fail_after(30):
        code = await run_doctor(make_config(folder / "state", **settings), findings.append, False)
    return code, {finding.name: finding for finding in findings}


class Model(Answering):
    """A model's endpoint that answers one thing."""

    def __init__(self, status, body):
        super().__init__(body)
        self.status = status

    async def respond(self, request):
        self.seen.append(request)
        return http.Response(self.status, self.body, {"Content-Type": "application/json"})


def problem(kind):
    return json.dumps({"type": "error", "error": {"type": kind, "message": "no"}}).encode()


async def test_scripted_model_and_local_tunnel_need_nothing(tmp_path) -> None:
    code, found = await examined(tmp_path, tunnel="local")
    assert code == 0
    assert {finding.state for finding in found.values()} == {State.ok}


async def test_missing_key_is_a_failure_that_says_what_to_do(tmp_path) -> None:
    code, found = await examined(tmp_path, tunnel="local", model="claude-x")
    assert code == 1
    assert (found["key"].state, found["model"].state) == (State.fail, State.note)
    assert "ANTHROPIC_API_KEY" in found["key"].detail


@pytest.mark.parametrize(
    ("status", "body", "state", "said"),
    [
        (200, b'{"id": "claude-x-1", "type": "model", "display_name": "x"}', State.ok, "claude-x-1"),
        (404, problem("not_found_error"), State.fail, "no model claude-x"),
        (404, b'{"detail": "Not Found"}', State.ok, "does not say which models"),
        (401, problem("authentication_error"), State.fail, "401"),
        (403, problem("permission_error"), State.fail, "403"),
    ],
)
async def test_models_endpoint_is_asked_and_its_answer_understood(status, body, state, said, tmp_path) -> None:
    async with answering(entrance=Model(status, body)) as endpoint:
        url = f"http://127.0.0.1:{endpoint.number}"
        key = {"anthropic_api_key": "sk-canary", "anthropic_base_url": url, "model_retries": 0}
        code, found = await examined(tmp_path, tunnel="local", model="claude-x", **key)
    assert found["model"].state is state, found["model"]
    assert said in found["model"].detail
    assert code == (state is State.fail)
    assert [request.path for request in endpoint.seen] == ["/v1/models/claude-x"]
    assert "sk-canary" not in str(found)


async def test_models_endpoint_that_is_not_there_is_a_failure(tmp_path) -> None:
    key = {"anthropic_api_key": "x", "anthropic_base_url": "http://127.0.0.1:9", "model_retries": 0}
    code, found = await examined(tmp_path, tunnel="local", model="claude-x", **key)
    assert (code, found["model"].state) == (1, State.fail)


@pytest.mark.parametrize(
    ("tunnel", "state"), [("auto", State.note), ("ngrok", State.fail), ("ngrok-shared", State.fail)]
)
async def test_missing_ngrok_is_a_failure_only_where_it_was_asked_for(tunnel, state, tmp_path) -> None:
    code, found = await examined(tmp_path, tunnel=tunnel)
    assert code == (state is State.fail)
    assert (found["ngrok agent"].state, found["ngrok authtoken"].state) == (state, state)
    assert "footlight doctor --install-ngrok" in found["ngrok agent"].detail
    assert "dashboard.ngrok.com" in found["ngrok authtoken"].detail
    assert found["ngrok account"].state is State.note


@pytest.mark.parametrize(
    ("tunnel", "plan", "state", "said"),
    [
        ("auto", "paid", State.ok, "each session gets one of its own"),
        ("auto", "free", State.ok, "a path each"),
        ("ngrok-shared", "free", State.ok, "a path each"),
        ("ngrok", "free", State.fail, "--tunnel ngrok-shared"),
    ],
)
async def test_account_is_tried_and_its_plan_told(tunnel, plan, state, said, *, tmp_path, monkeypatch) -> None:
    before = leftovers()[:2]
    async with open_cloud(tmp_path, plan=plan) as cloud:
        monkeypatch.setenv("PYNGROK_NGROK_PATH", str(cloud.ngrok))
        code, found = await examined(tmp_path, tunnel=tunnel, ngrok_authtoken=cloud.authtoken)
        assert found["ngrok account"].state is state, found["ngrok account"]
        assert said in found["ngrok account"].detail
        assert code == (state is State.fail)
        assert not cloud.endpoints
        assert cloud.authtoken not in str(found)
    assert leftovers()[:2] == before


async def test_bad_authtoken_is_a_failure_that_says_where_to_get_another(tmp_path, monkeypatch) -> None:
    async with open_cloud(tmp_path) as cloud:
        monkeypatch.setenv("PYNGROK_NGROK_PATH", str(cloud.ngrok))
        code, found = await examined(tmp_path, tunnel="auto", ngrok_authtoken="nonsense")
    assert (code, found["ngrok account"].state) == (1, State.fail)
    assert "dashboard.ngrok.com" in found["ngrok account"].detail


async def test_static_tunnel_says_where_the_proxy_is_to_lead(tmp_path) -> None:
    code, found = await examined(tmp_path, tunnel="static", public_url="https://demo.example.com", shared_port=8123)
    assert code == 0
    assert "https://demo.example.com to 127.0.0.1:8123" in found["tunnel"].detail
    code, found = await examined(tmp_path, tunnel="static")
    assert (code, found["tunnel"].state) == (1, State.fail)


async def test_state_directory_that_cannot_be_used_is_a_failure(tmp_path) -> None:
    (tmp_path / "state").write_text("a file")
    code, found = await examined(tmp_path, tunnel="local")
    assert (code, found["disk"].state) == (1, State.fail)
    assert "--state-dir" in found["disk"].detail


async def run_command(*args):
    done = await trio.run_process(
        [*FOOTLIGHT, "doctor", *args], env=environment(), capture_stdout=True, capture_stderr=True, check=False
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


async def test_command_prints_a_line_for_each_finding(tmp_path) -> None:
    code, out, err = await run_command("--model", "scripted", "--tunnel", "local", "--state-dir", str(tmp_path))
    assert (code, err) == (0, "")
    assert [line.split(":")[0].split() for line in out.splitlines()] == [
        ["ok", "key"],
        ["ok", "model"],
        ["ok", "tunnel"],
        ["ok", "sandbox"],
        ["ok", "disk"],
    ]


async def test_sandbox_is_tried_and_what_is_missing_said(tmp_path, monkeypatch) -> None:
    code, found = await examined(tmp_path, tunnel="local")
    assert (code, found["sandbox"].state) == (0, State.ok)
    _, found = await examined(tmp_path, tunnel="local", sandbox="none")
    assert found["sandbox"].state is State.note
    _, found = await examined(tmp_path, tunnel="local", sandbox_network=True)
    assert "reaches the network" in found["sandbox"].detail
    monkeypatch.setenv("PATH", "/nowhere")
    code, found = await examined(tmp_path, tunnel="local")
    assert (code, found["sandbox"].state) == (1, State.fail)
    assert "bubblewrap is not installed; install bubblewrap" in found["sandbox"].detail


async def test_command_exits_with_1_where_something_needed_is_missing_and_speaks_json(tmp_path) -> None:
    code, out, _ = await run_command("--model", "claude-x", "--tunnel", "ngrok", "--json", "--state-dir", str(tmp_path))
    assert code == 1
    findings = [msgspec.json.decode(line) for line in out.splitlines()]
    assert {"name": "key", "state": "fail"}.items() <= findings[0].items()


@pytest.mark.slow
async def test_download_that_fails_is_a_failure_and_its_progress_no_part_of_the_answer(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing is asked of the network here
    args = ("--model", "scripted", "--tunnel", "local", "--install-ngrok", "--json", "--state-dir", str(tmp_path))
    code, out, _ = await run_command(*args)
    assert code == 1
    findings = {each["name"]: each for each in map(msgspec.json.decode, out.splitlines())}
    assert findings["ngrok download"]["state"] == "fail"
