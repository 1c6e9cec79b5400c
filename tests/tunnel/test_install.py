"""Finding ngrok and its authtoken, and the configuration of our agent."""

import os
import stat

import pytest
import trio

from tests.support import children
from tunnel import TunnelError
from tunnel.install import find_authtoken, find_binary, installed_path, require_authtoken, version_of, write_config


def executable(path, text="#!/bin/sh\necho ngrok version 3.39.1\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o700)
    return path


def test_named_binary_comes_first(tmp_path) -> None:
    named, other = executable(tmp_path / "mine"), executable(tmp_path / "bin" / "ngrok")
    assert find_binary({"PYNGROK_NGROK_PATH": str(named), "PATH": str(other.parent)}) == named


def test_binary_on_the_path_comes_before_the_installed_one(tmp_path) -> None:
    environ = {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    with pytest.raises(TunnelError, match="install-ngrok"):
        find_binary(environ)
    installed = executable(installed_path(environ))
    assert find_binary(environ) == installed
    other = executable(tmp_path / "bin" / "ngrok")
    assert find_binary(environ) == other


def test_script_that_pyngrok_puts_on_the_path_is_not_ngrok(tmp_path) -> None:
    script = "#!/usr/bin/python3\nimport sys\nfrom pyngrok.ngrok import main\nsys.exit(main())\n"
    executable(tmp_path / "venv" / "ngrok", script)
    real = executable(tmp_path / "real" / "ngrok")
    environ = {"PATH": f"{tmp_path / 'venv'}{os.pathsep}{tmp_path / 'real'}", "HOME": str(tmp_path)}
    assert find_binary(environ) == real


@pytest.mark.parametrize("kind", ["missing", "folder", "not executable"])
def test_named_binary_that_cannot_be_run_is_an_error_and_nothing_else_is_taken(kind, tmp_path) -> None:
    path = tmp_path / "ngrok"
    if kind == "folder":
        path.mkdir()
    elif kind == "not executable":
        path.write_text("")
    other = executable(tmp_path / "bin" / "ngrok")
    with pytest.raises(TunnelError, match="PYNGROK_NGROK_PATH") as error:
        find_binary({"PYNGROK_NGROK_PATH": str(path), "PATH": str(other.parent)})
    assert error.value.code == "ngrok_missing"


async def test_version_is_what_the_binary_says(tmp_path) -> None:
    assert await version_of(executable(tmp_path / "ngrok")) == "3.39.1"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("#!/bin/sh\necho ngrok version 3.29.9\n", "ngrok_too_old"),
        ("#!/bin/sh\necho ngrok version 2.3.41\n", "ngrok_too_old"),
        ("#!/bin/sh\necho hello; seq 1000\n", "ngrok_unusable"),
        ("#!/bin/sh\nexit 1\n", "ngrok_unusable"),
        ("\x7fELF nothing", "ngrok_unusable"),
    ],
)
async def test_binary_that_cannot_be_driven_is_refused(text, code, tmp_path) -> None:
    with pytest.raises(TunnelError) as error:
        await version_of(executable(tmp_path / "ngrok", text))
    assert error.value.code == code
    assert len(error.value.detail) < len(str(tmp_path)) + 180


async def test_binary_that_hangs_is_given_up_and_killed(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tunnel.install._VERSION_DEADLINE", 0.2)
    before = children()
    with trio.fail_after(5), pytest.raises(TunnelError, match="does not answer"):
        await version_of(executable(tmp_path / "ngrok", "#!/bin/sh\nexec sleep 1000\n"))
    assert children() == before


@pytest.mark.parametrize(
    ("text", "token"),
    [
        ("version: 3\nagent:\n    authtoken: 2abc_def\n", "2abc_def"),
        ("version: '2'\nauthtoken: 2abc_def\n", "2abc_def"),
        ('agent:\n  authtoken: "2abc_def" # mine\n', "2abc_def"),
        ("version: 3\nagent:\n  # authtoken: none\n", None),
        ("\x00\xff", None),
        ("", None),
    ],
)
def test_authtoken_of_the_users_own_configuration_is_found(text, token, tmp_path) -> None:
    (tmp_path / "ngrok").mkdir()
    (tmp_path / "ngrok" / "ngrok.yml").write_text(text)
    environ = {"XDG_CONFIG_HOME": str(tmp_path), "HOME": str(tmp_path)}
    assert find_authtoken(None, environ) == token
    assert find_authtoken("given", environ) == "given"


def test_authtoken_that_there_is_not_is_an_error_that_says_where_to_get_one(tmp_path) -> None:
    with pytest.raises(TunnelError, match=r"dashboard\.ngrok\.com") as error:
        require_authtoken(None, {"XDG_CONFIG_HOME": str(tmp_path), "HOME": str(tmp_path)})
    assert error.value.code == "ngrok_no_token"


def test_configuration_is_for_its_owner_alone_also_where_another_one_lay(tmp_path) -> None:
    path = tmp_path / "ngrok.yml"
    path.write_text("open to all")
    path.chmod(0o644)
    write_config(path, '2abc_"def')
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text()
    assert 'authtoken: "2abc_\\"def"' in text
    assert "inspect_db_size: -1" in text
    assert "remote_management: false" in text
