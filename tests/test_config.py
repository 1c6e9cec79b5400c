import dataclasses
from pathlib import Path

import pytest

from daemon.config import Config, settings

SETTINGS = settings()


def test_config_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().port = 1


def test_config_takes_names_only():
    with pytest.raises(TypeError):
        Config("0.0.0.0")


@pytest.mark.parametrize("field", SETTINGS, ids=lambda field: field.name)
def test_setting_has_a_help_text_and_a_default_that_it_allows(field):
    text, default = field.metadata["help"], getattr(Config(), field.name)
    assert len(text) > 10
    assert text == text.strip().removesuffix(".")
    assert field.metadata.keys() <= {"help", "choices", "range", "multiple", "secret"}
    if "choices" in field.metadata:
        assert default == () or default in field.metadata["choices"]
    if "range" in field.metadata:
        low, high = field.metadata["range"]
        assert low <= default <= high
    assert field.metadata.get("multiple", False) == isinstance(default, tuple)


def test_settings_have_one_name_each_as_flag_and_as_variable():
    names = [field.name for field in SETTINGS]
    assert len({name.replace("_", "-") for name in names}) == len({name.upper() for name in names}) == len(names)


def test_settings_hold_what_the_contract_names():
    promised = {
        "host": "127.0.0.1",
        "port": 8000,
        "tunnel": "auto",
        "sandbox": "bwrap",
        "approval": "auto",
        "ask_for": (),
        "session_timeout": 3600,
        "idle_timeout": 0,
        "max_sessions": 16,
        "log_format": "text",
        "api_token": None,
        "public_url": None,
        "allow_host": (),
        "allow_origin": (),
        "delta_window": 0.04,
    }
    config = Config()
    assert {name: getattr(config, name) for name in promised} == promised
    assert promised.keys() | {"model", "state_dir"} <= {field.name for field in SETTINGS}
    choices = {field.name: field.metadata["choices"] for field in SETTINGS if "choices" in field.metadata}
    assert choices == {
        "tunnel": ("auto", "ngrok", "ngrok-shared", "static", "local"),
        "compaction": ("auto", "api", "local"),
        "sandbox": ("bwrap", "none"),
        "approval": ("auto", "ask"),
        "ask_for": ("bash", "read", "write", "edit", "glob", "grep", "preview_errors"),
        "log_format": ("text", "json"),
    }


def test_secrets_are_not_shown():
    shown = repr(Config(api_token="s3cret-a", anthropic_api_key="s3cret-b"))
    assert "s3cret" not in shown
    assert "host='127.0.0.1'" in shown


def test_secrets_of_the_standard_variables_are_no_settings():
    names = {field.name for field in SETTINGS}
    assert not names & {"anthropic_api_key", "anthropic_base_url"}


@pytest.mark.parametrize("grace", [2.0, 5.0, 30.0])
def test_graces_of_sessions_and_api_fit_into_the_shutdown(grace):
    config = Config(shutdown_grace=grace)
    assert config.sessions_grace > 0
    assert config.sessions_grace + config.api_grace <= grace
    assert Config().drain_grace < Config().sessions_grace


def test_sessions_get_some_grace_however_short_the_shutdown_is():
    assert Config(shutdown_grace=0.0).sessions_grace > 0


@pytest.mark.parametrize("field", dataclasses.fields(Config), ids=lambda field: field.name)
def test_limits_and_deadlines_are_positive(field):
    value = getattr(Config(), field.name)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and field.name != "idle_timeout":
        assert value > 0


def test_folder_of_a_session_is_its_own():
    config = Config(state_dir=Path("/state"))
    assert config.session_dir("abc") == Path("/state/sessions/abc")
    assert config.session_dir("abc") != config.session_dir("abd")
