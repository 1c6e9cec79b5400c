"""The command line: what it refuses, which of flag, variable and file wins, and what it does not import."""

import dataclasses
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from daemon import __version__, cli, log
from daemon.config import Config, settings
from daemon.main import lock_state_dir


class Result(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """No settings of the machine, and an empty current directory."""
    for name in os.environ:
        if name.startswith(("FOOTLIGHT_", "ANTHROPIC_")):
            monkeypatch.delenv(name)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield
    log.configure("text", quiet=True)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """The command in this process."""

    def call(*argv: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["footlight", *argv])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return Result(ended.value.code, *capfd.readouterr())

    return call


def parsed(*argv: str) -> dict[str, Any]:
    """What `serve` makes of its arguments, the variables and the file."""
    return cli.serve.make_context("footlight", list(argv)).params


def refused(result: Result, what: str) -> None:
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith("footlight: ")
    assert result.err.count("\n") == 1
    assert what in result.err


# --- what is refused


@pytest.mark.parametrize(
    ("argv", "what"),
    [
        (["nope"], "No such command 'nope'"),
        (["serve", "--prot", "0"], "--prot"),
        (["serve", "extra"], "extra"),
        (["serve", "--port"], "--port"),
        (["serve", "--port", "x"], "'x' is not a valid integer"),
        (["serve", "--port", "70000"], "70000 is not in the range"),
        (["serve", "--port", "-1"], "-1 is not in the range"),
        (["serve", "--max-sessions", "0"], "0 is not in the range"),
        (["serve", "--session-timeout", "1h"], "'1h' is not a valid float"),
        (["serve", "--session-timeout", "nan"], "'nan' is not a number"),
        (["serve", "--script-pace", "-1"], "-1"),
        (["serve", "--tunnel", "nope"], "'nope' is not one of 'auto', 'ngrok'"),
        (["serve", "--sandbox", "docker"], "'docker' is not one of"),
        (["serve", "--config", "absent.toml"], "'absent.toml' does not exist"),
        (["serve", "--host", "0.0.0.0"], "set --api-token"),
        (["serve", "--host", "::"], "set --api-token"),
        (["serve", "--host", ""], "set --api-token"),
        (["serve", "--script", "absent"], "the script absent cannot be used"),
        (["serve", "--host", "x" * 80, "--api-token", "t"], "cannot listen on"),
        (["serve", "--host", "203.0.113.1", "--api-token", "t"], "cannot listen on 203.0.113.1"),
        (["demo", "--once", " "], "not blank"),
        (["demo", "--once", "\udcff"], "UTF-8"),
        (["demo", "a", "b"], "b"),
        (["demo", "--model", "other"], "--model"),
    ],
)
def test_argument_is_refused_in_one_line(run, argv, what):
    refused(
        run(*argv, *(["--state-dir", "state", "--port", "0"] if len(argv) > 2 and "--port" not in argv else [])), what
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "abc"),
        ("PORT", "99999"),
        ("TUNNEL", "nope"),
        ("LOG_FORMAT", "xml"),
        ("IDLE_TIMEOUT", "-1"),
        ("IDLE_TIMEOUT", "nan"),
        ("CONFIG", "absent"),
    ],
)
def test_variable_is_refused_in_one_line(run, monkeypatch, name, value):
    monkeypatch.setenv(f"FOOTLIGHT_{name}", value)
    refused(run("serve"), value)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("prot = 1", "a setting that does not exist: prot"),
        ("anthropic_api_key = 'x'", "a setting that does not exist: anthropic_api_key"),
        ("[serve]\nport = 1", "a setting that does not exist: serve"),
        ("port = '8000'", "port must be a whole number, not '8000'"),
        ("port = true", "port must be a whole number, not True"),
        ("port = 1.0", "port must be a whole number"),
        ("port = 70000", "70000 is not in the range"),
        ("host = 5", "host must be a text, not 5"),
        ("api-token = false", "api_token must be a text"),
        ("tunnel = 'nope'", "'nope' is not one of"),
        ("tunnel = ['local']", "tunnel must be a text"),
        ("state_dir = 1", "state_dir must be a text"),
        ('state_dir = "a\\u0000b"', "is not a path"),
        ("session_timeout = '1h'", "session_timeout must be a number"),
        ("session_timeout = nan", "nan is not a number"),
        ("session_timeout = true", "session_timeout must be a number"),
        ("allow_host = 'a.example'", "allow_host must be a list of texts"),
        ("allow_origin = [1]", "allow_origin must be a list of texts"),
        ("port 1", "footlight.toml cannot be used"),
        ("port = 1\nport = 2", "footlight.toml cannot be used"),
        (b"host = '\xff'", "footlight.toml cannot be used"),
    ],
)
def test_file_is_refused_in_one_line(run, text, what):
    Path("footlight.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(run("serve"), what)


def test_file_that_is_a_folder_is_refused(run):
    Path("footlight.toml").mkdir()
    refused(run("serve"), "footlight.toml cannot be used")


def test_file_of_demo_is_read_too(run):
    Path("footlight.toml").write_text("prot = 1")
    refused(run("demo", "--once"), "a setting that does not exist: prot")


def test_port_in_use_is_refused_in_one_line(run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused(
            run("serve", "--port", port, "--state-dir", "state"), f"cannot listen on 127.0.0.1 port {port}: Address"
        )


def test_state_dir_in_use_is_refused_in_one_line(run):
    with lock_state_dir(Path("state")):
        refused(run("serve", "--port", "0", "--state-dir", "state"), "another footlight uses the state directory state")


@pytest.mark.parametrize("folder", ["file", "file/below", "/proc/nothing"])
def test_state_dir_that_cannot_be_made_is_refused_in_one_line(run, folder):
    Path("file").touch()
    refused(run("serve", "--port", "0", "--state-dir", folder), f"the state directory {folder} cannot be used")


@pytest.mark.parametrize("spoil", [lambda db: db.mkdir(), lambda db: db.write_bytes(b"no database" * 100)])
def test_database_that_cannot_be_opened_is_refused_in_one_line(run, spoil):
    Path("state").mkdir()
    spoil(Path("state/footlight.db"))
    refused(run("serve", "--port", "0", "--state-dir", "state"), "the database state/footlight.db cannot be used")


@pytest.mark.parametrize(
    ("text", "what"), [("name = 1", "the script s.toml"), ("x = [", "the script s.toml"), ("name='x'\nturn=[]", "turn")]
)
def test_script_that_cannot_be_played_is_refused_in_one_line(run, text, what):
    Path("s.toml").write_text(text)
    refused(run("serve", "--port", "0", "--state-dir", "state", "--script", "s.toml"), what)


def test_no_command_shows_the_help_and_fails(run):
    code, out, err = run()
    assert (code, out) == (2, "")
    assert err.startswith("Usage: footlight")


# --- which value wins


def samples(field: dataclasses.Field[Any]) -> list[str]:
    """Three values that a setting can have and does not have by default, as texts."""
    meta, default = field.metadata, cli._default(field)
    if "choices" in meta:
        return [choice for choice in meta["choices"] if choice != default][:3]
    if "range" in meta:
        values = [int(meta["range"][0]) + step for step in (1, 2, 3)]
        return [str(value) for value in values if value != default]
    return [f"/{letter}" if field.name in cli._PATHS else f"{letter}.example" for letter in "abc"]


VALUED = [field for field in settings() if not isinstance(field.default, bool)]


@pytest.mark.parametrize("field", VALUED, ids=lambda field: field.name)
def test_flag_beats_variable_beats_file_beats_default(monkeypatch, field):
    flag, variable, file = (samples(field) * 3)[:3]
    multiple = field.metadata.get("multiple", False)

    def value() -> str:
        found = parsed(*given)[field.name]
        return str(found if not multiple or not found else found[0])

    given: list[str] = []
    assert value() == str(cli._default(field))
    quoted = file if "range" in field.metadata else f"'{file}'"
    Path("footlight.toml").write_text(f"{field.name} = {f'[{quoted}]' if multiple else quoted}")
    assert value() in {file, f"{file}.0"}
    monkeypatch.setenv(f"FOOTLIGHT_{field.name.upper()}", variable)
    assert value() in {variable, f"{variable}.0"}
    given += [f"--{field.name.replace('_', '-')}", flag]
    assert value() in {flag, f"{flag}.0"}


@pytest.mark.parametrize("field", [field for field in settings() if field not in VALUED], ids=lambda field: field.name)
def test_switch_is_a_flag_a_variable_and_a_truth_in_the_file(run, monkeypatch, field):
    default, flag = cli._default(field), field.name.replace("_", "-")
    assert parsed()[field.name] is default
    assert parsed(f"--{flag}")[field.name] is True
    Path("footlight.toml").write_text(f"{field.name} = {'false' if default else 'true'}")
    assert parsed()[field.name] is not default
    monkeypatch.setenv(f"FOOTLIGHT_{field.name.upper()}", "1")
    assert parsed()[field.name] is True
    assert parsed(f"--no-{flag}")[field.name] is False
    Path("footlight.toml").write_text(f"{field.name} = 'yes'")
    refused(run("serve"), f"{field.name} must be true or false, not 'yes'")


def test_every_parsed_value_makes_a_config():
    assert Config(**parsed("--port", "1")) == Config(port=1)


def test_repeatable_setting_is_taken_whole_from_one_place(monkeypatch):
    Path("footlight.toml").write_text("allow-host = ['a', 'b']")
    assert parsed()["allow_host"] == ("a", "b")
    monkeypatch.setenv("FOOTLIGHT_ALLOW_HOST", "c d")
    assert parsed()["allow_host"] == ("c", "d")
    assert parsed("--allow-host", "e", "--allow-host", "f g")["allow_host"] == ("e", "f g")


def test_empty_variable_is_none(monkeypatch):
    monkeypatch.setenv("FOOTLIGHT_PORT", "")
    assert parsed()["port"] == 8000


def test_path_of_the_file_is_meant_from_where_the_file_is(tmp_path):
    file = tmp_path / "elsewhere" / "own.toml"
    file.parent.mkdir()
    file.write_text("state_dir = 'state'\nscript = '/absolute.toml'")
    values = parsed("--config", str(file))
    assert (values["state_dir"], values["script"]) == (file.parent / "state", Path("/absolute.toml"))


def test_path_of_a_flag_is_meant_from_the_current_directory():
    assert parsed("--state-dir", "state")["state_dir"] == Path("state")


def test_tilde_is_the_home_folder_wherever_a_path_comes_from(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    Path("footlight.toml").write_text("state_dir = '~/state'")
    assert parsed()["state_dir"] == tmp_path / "state"
    monkeypatch.setenv("FOOTLIGHT_STATE_DIR", "~/other")
    assert parsed()["state_dir"] == tmp_path / "other"


def test_config_named_by_a_variable_replaces_the_one_that_lies_here(monkeypatch):
    Path("footlight.toml").write_text("port = 1")
    Path("own.toml").write_text("host = '127.0.0.9'")
    monkeypatch.setenv("FOOTLIGHT_CONFIG", "own.toml")
    values = parsed()
    assert (values["host"], values["port"]) == ("127.0.0.9", 8000)


def test_secrets_leave_the_environment(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-secret")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("FOOTLIGHT_API_TOKEN", "t0ken")
    monkeypatch.setenv("NGROK_AUTHTOKEN", "2auth_secret")
    config = cli._config(parsed())
    assert (config.anthropic_api_key, config.api_token) == ("sk-secret", "t0ken")
    assert config.anthropic_base_url == "http://127.0.0.1:9"
    assert config.ngrok_authtoken == "2auth_secret"
    names = {"ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "FOOTLIGHT_API_TOKEN", "NGROK_AUTHTOKEN"}
    assert not names & os.environ.keys()
    assert "secret" not in repr(config)


def test_empty_key_is_no_key(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "")
    assert cli._config(parsed()).anthropic_api_key is None


# --- what is imported, and when

_HEAVY = {
    "anthropic",
    "apsw",
    "hypercorn",
    "pyngrok",
    "quart",
    "quart_trio",
    "rich",
    "trio",
    "trio_websocket",
}


def _child(code: str, *argv: str) -> list[str]:
    """The lines that a fresh interpreter prints."""
    ran = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stderr == ""
    return ran.stdout.splitlines()


@pytest.mark.parametrize("argv", [["--version"], ["--help"], ["serve", "--help"], ["demo", "--help"]])
def test_help_imports_nothing_heavy(argv):
    code = """
import sys
from daemon.cli import main
sys.argv[0] = "footlight"
try:
    main()
except SystemExit as ended:
    print(ended.code, *{name.partition(".")[0] for name in sys.modules})
"""
    lines = _child(code, *argv)
    assert lines[0] == f"footlight {__version__}" if argv == ["--version"] else lines[0].startswith("Usage: footlight")
    status, *modules = lines[-1].split()
    assert status == "0"
    assert not _HEAVY & {*modules}


def test_daemon_listens_before_the_sdk_is_imported(tmp_path):
    code = """
import os, sys
from pathlib import Path
import trio
from daemon.config import Config
from daemon.main import run_daemon

async def use(daemon):
    print("anthropic" in sys.modules, "hypercorn" in sys.modules, flush=True)
    os._exit(0)

trio.run(run_daemon, Config(port=0, anthropic_api_key="k", state_dir=Path(sys.argv[1])), use)
"""
    assert _child(code, str(tmp_path)) == ["False True"]
