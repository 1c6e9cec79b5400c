"""The `footlight` command: thin; a command imports the heavy parts when it runs."""

import dataclasses
import os
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn, TypeVar

import click

from daemon import __version__
from daemon.config import Config, settings
from daemon.errors import ConfigError, first_cause

_CONFIG_FILE = "footlight.toml"
_F = TypeVar("_F", bound=Callable[..., Any])


def _option(field: dataclasses.Field[Any]) -> Callable[[_F], _F]:
    """A setting as a flag with its environment variable."""
    default: Any = getattr(Config(), field.name)
    meta = field.metadata
    kind: Any = type(default) if default is not None else str
    if "choices" in meta:
        kind = click.Choice(meta["choices"])
    elif "range" in meta:
        low, high = meta["range"]
        kind = (click.IntRange if isinstance(default, int) else click.FloatRange)(low, high)
    elif field.name in {"state_dir", "script"}:
        kind = click.Path(path_type=Path)
    elif meta.get("multiple"):
        kind = str
    return click.option(
        f"--{field.name.replace('_', '-')}",
        type=kind,
        default=default,
        show_default=default not in {None, ()} and not meta.get("secret"),
        multiple=meta.get("multiple", False),
        envvar=f"FOOTLIGHT_{field.name.upper()}",
        help=meta["help"],
    )


def _with_settings(*left_out: str) -> Callable[[_F], _F]:
    """All settings as options of a command, which gets them in one dict."""

    def decorate(command: _F) -> _F:
        for field in reversed(settings()):
            if field.name not in left_out:
                command = _option(field)(command)
        return command

    return decorate


def _read_file(context: click.Context, _parameter: click.Parameter, value: Path | None) -> None:
    """`footlight.toml` as the defaults of every option; an unknown key is an error."""
    path = value or Path(_CONFIG_FILE)
    if value is None and not path.exists():
        return
    try:
        keys = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise click.UsageError(f"{path} cannot be used: {error}") from None
    known = {field.name for field in settings()}
    if unknown := {key.replace("-", "_") for key in keys} - known:
        raise click.UsageError(f"{path} has a setting that does not exist: {min(unknown)}")
    context.default_map = {key.replace("-", "_"): value for key, value in keys.items()}


_file_option = click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="FOOTLIGHT_CONFIG",
    is_eager=True,
    expose_value=False,
    callback=_read_file,
    help=f"file with settings (default: {_CONFIG_FILE} in the current directory, if there)",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="footlight", message="%(prog)s %(version)s")
def footlight() -> None:
    """One live URL per AI agent session."""


@footlight.command()
@_file_option
@_with_settings()
def serve(**values: Any) -> None:
    """Run the daemon in the foreground."""
    from daemon import log

    config = _config(values)
    log.configure(config.log_format)
    import trio

    from daemon.main import Daemon, run_daemon

    async def until_stopped(daemon: Daemon) -> NoReturn:
        click.echo(f"footlight: listening on {daemon.url}")
        await trio.sleep_forever()

    sys.exit(_run(run_daemon, config, until_stopped))


@footlight.command()
@click.argument("message", default="Build a restaurant menu")
@click.option("--once", is_flag=True, help="end after the first turn")
@_file_option
@_with_settings("model", "tunnel", "approval", "api_token", "log_format", "state_dir", "port", "host", "max_sessions")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    envvar="FOOTLIGHT_PORT",
    help="port of the API, 0 = any free one",
)
@click.option(
    "--state-dir", type=click.Path(path_type=Path), envvar="FOOTLIGHT_STATE_DIR", help="keep the session there"
)
def demo(message: str, once: bool, state_dir: Path | None, **values: Any) -> None:
    """Show the whole thing with no account and no key."""
    from daemon import log
    from daemon.demo import run_demo

    log.configure("text", quiet=True)
    with TemporaryDirectory(prefix="footlight-") as temporary:
        config = _config({**values, "model": "scripted", "tunnel": "local", "state_dir": state_dir or Path(temporary)})
        code = _run(run_demo, config, message, once)
    sys.exit(code)


def _config(values: dict[str, Any]) -> Config:
    """Settings and the standard variables; the secrets among these leave the environment, so that no child can inherit them."""
    return Config(
        **values,
        anthropic_api_key=os.environ.pop("ANTHROPIC_API_KEY", None) or None,
        anthropic_base_url=os.environ.pop("ANTHROPIC_BASE_URL", None) or None,
    )


def _run(run: Any, *args: Any) -> int:
    """Run Trio to its end: exit codes and error lines as the contract has them."""
    import trio

    try:
        return int(trio.run(run, *args))
    except* ConfigError as group:
        click.echo(f"footlight: {first_cause(group)}", err=True)
        sys.exit(2)
    except* KeyboardInterrupt:
        sys.exit(130)


def main() -> None:
    """The entry point: wrong usage is one line on stderr."""
    try:
        sys.exit(footlight(prog_name="footlight", standalone_mode=False))
    except click.ClickException as error:
        click.echo(f"footlight: {error.format_message()}", err=True)
        sys.exit(2 if isinstance(error, click.UsageError) else error.exit_code)
    except click.Abort:
        sys.exit(130)
