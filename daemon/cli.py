"""The `footlight` command: thin; a command imports the heavy parts when it runs."""

import dataclasses
import io
import os
import signal
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn, TypeVar

import click

from daemon import __version__
from daemon.config import Config, settings
from daemon.errors import CallerError, first_cause
from daemon.hiding import refuse_inspection, take_secret
from daemon.log import clean

_CONFIG_FILE = "footlight.toml"
_PATHS = {"state_dir", "script"}
_F = TypeVar("_F", bound=Callable[..., Any])


class _Seconds(click.FloatRange):
    """A number in a range, which NaN is not."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        return number if number == number else self.fail(f"{value!r} is not a number.", param, ctx)  # noqa: PLR0124


class _Path(click.Path):
    """A path; `~` is the home folder also where no shell has replaced it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        try:
            path = Path(value).expanduser()
        except RuntimeError as error:
            self.fail(str(error), param, ctx)
        return path if "\0" not in str(path) else self.fail(f"{value!r} is not a path.", param, ctx)


def _option(field: dataclasses.Field[Any]) -> Any:
    """A setting as a flag with its environment variable."""
    default = _default(field)
    meta = field.metadata
    kind: Any = type(default) if default is not None else str
    if "choices" in meta:
        kind = click.Choice(meta["choices"])
    elif "range" in meta:
        kind = (click.IntRange if isinstance(default, int) else _Seconds)(*meta["range"])
    elif field.name in _PATHS:
        kind = _Path()
    elif meta.get("multiple"):
        kind = str
    flag = f"--{field.name.replace('_', '-')}"
    return click.option(
        f"{flag}/--no-{flag[2:]}" if kind is bool else flag,
        type=kind,
        default=default,
        show_default=default not in {None, ()} and not meta.get("secret"),
        multiple=meta.get("multiple", False),
        envvar=_variable(field),
        help=meta["help"],
    )


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _variable(field: dataclasses.Field[Any]) -> str:
    return f"FOOTLIGHT_{field.name.upper()}"


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
    fields = {field.name: field for field in settings()}
    given = {key.replace("-", "_"): value for key, value in keys.items()}
    if unknown := given.keys() - fields.keys():
        raise click.UsageError(f"{path} has a setting that does not exist: {min(unknown)}")
    context.default_map = {name: _from_file(path, fields[name], value) for name, value in given.items()}


def _from_file(path: Path, field: dataclasses.Field[Any], value: Any) -> Any:
    """A value of the file, if it has its setting's type; a relative path is meant from where the file is."""
    default = _default(field)
    match default:
        case tuple():
            what, fits = "a list of texts", isinstance(value, list) and all(isinstance(each, str) for each in value)
        case bool():
            what, fits = "true or false", isinstance(value, bool)
        case int():
            what, fits = "a whole number", type(value) is int
        case float():
            what, fits = "a number", type(value) in {int, float}
        case _:
            what, fits = "a text", isinstance(value, str)
    if not fits:
        raise click.UsageError(f"{path}: {field.name} must be {what}, not {value!r}")
    return str(path.parent / os.path.expanduser(value)) if field.name in _PATHS else value  # noqa: PTH111


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

    refuse_inspection()
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
@_with_settings(
    "model", "tunnel", "approval", "ask_for", "api_token", "log_format", "state_dir", "port", "host", "max_sessions"
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    envvar="FOOTLIGHT_PORT",
    help="port of the API, 0 = any free one",
)
@click.option("--state-dir", type=_Path(), envvar="FOOTLIGHT_STATE_DIR", help="keep the session there")
def demo(message: str, once: bool, state_dir: Path | None, **values: Any) -> None:
    """Show the whole thing with no account and no key."""
    from daemon import log
    from daemon.demo import run_demo

    log.configure("text", quiet=True)
    with _interruptible(), TemporaryDirectory(prefix="footlight-") as temporary:
        config = _config({**values, "model": "scripted", "tunnel": "local", "state_dir": state_dir or Path(temporary)})
        code = _run(run_demo, config, message, once)
    sys.exit(code)


@footlight.command()
@click.option("--install-ngrok", is_flag=True, help="download the ngrok agent first, to where pyngrok keeps it")
@click.option("--json", "as_json", is_flag=True, help="one JSON object a line")
@_file_option
@_with_settings("log_format")
def doctor(install_ngrok: bool, as_json: bool, **values: Any) -> None:
    """Check that everything the settings need is there: a line each, and what to do about a failure."""
    import msgspec

    from daemon.doctor import Finding, run_doctor

    def tell(finding: Finding) -> None:
        text = f"{finding.state:<5} {finding.name}: {clean(finding.detail)}"
        click.echo(msgspec.json.encode(finding).decode() if as_json else text)

    sys.exit(_run(run_doctor, _config(values), tell, install_ngrok))


def _config(values: dict[str, Any]) -> Config:
    """Settings and the standard variables; the secrets among these leave the environment, so that no child can inherit them."""
    for field in settings():
        if field.metadata.get("secret"):
            take_secret(_variable(field))
    return Config(
        **values,
        anthropic_api_key=take_secret("ANTHROPIC_API_KEY"),
        anthropic_base_url=take_secret("ANTHROPIC_BASE_URL"),
        ngrok_authtoken=take_secret("NGROK_AUTHTOKEN"),
    )


def _run(run: Any, *args: Any) -> int:
    """Run Trio to its end: exit codes and error lines as the contract has them."""
    import trio

    code = 1
    try:
        with _interruptible():
            code = int(trio.run(run, *args))
    except* CallerError as group:  # a setting or an argument that cannot be used
        _complain(str(first_cause(group)))
        code = 2
    except* KeyboardInterrupt:
        code = 130
    except* (BrokenPipeError, SystemExit):  # whoever read the output has gone; rich makes it a SystemExit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl+C raises `KeyboardInterrupt` in here; before and after, it ends the process at once, as `__main__` has it."""
    outside = signal.getsignal(signal.SIGINT)
    if outside is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # and not ignored by now
            signal.signal(signal.SIGINT, outside)


def _complain(what: str) -> None:
    click.echo(f"footlight: {' '.join(what.split())}", err=True)


def _leave_launcher() -> None:
    """In the single binary this is a child of the launcher that unpacked it: end with it, and keep its libraries to ourselves."""
    import ctypes

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)  # who kills the launcher means the daemon
    original = os.environ.pop("LD_LIBRARY_PATH_ORIG", None)
    os.environ.pop("LD_LIBRARY_PATH", None)
    if original is not None:
        os.environ["LD_LIBRARY_PATH"] = original


def main() -> None:
    """The entry point: wrong usage is one line on stderr."""
    if getattr(sys, "frozen", False) and sys.platform == "linux":
        _leave_launcher()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without Unicode is no reason to stop
    try:
        sys.exit(footlight(prog_name="footlight", standalone_mode=False))
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(2)
    except click.ClickException as error:
        _complain(error.format_message())
        sys.exit(2 if isinstance(error, click.UsageError) else error.exit_code)
    except click.Abort:
        sys.exit(130)
