"""The ngrok binary, the authtoken and the configuration of our agent.

Nothing is ever downloaded except by `install`, which `footlight doctor --install-ngrok` calls.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import trio

from tunnel.codes import error_of

OLDEST = (3, 30)  # the first with /api/endpoints
_VERSION_DEADLINE = 10.0  # s
_SAYING = 80  # characters of what is no version

_CONFIG = """\
version: 3
agent:
  authtoken: {authtoken}
  inspect_db_size: -1       # the inspector would keep requests, tokens and all, and replay them for any local process
  remote_management: false  # what a session owns is not stopped from a dashboard
  update_check: false
  console_ui: false
"""
_KEPT_TOKEN = re.compile(r"""^\s*authtoken:\s*["']?([^\s"'#]+)""", re.MULTILINE)


def find_binary(environ: Mapping[str, str] = os.environ) -> Path:
    """Find ngrok by PYNGROK_NGROK_PATH, on PATH, or where pyngrok installs it. Raises `TunnelError`."""
    if given := environ.get("PYNGROK_NGROK_PATH"):
        if os.access(given, os.X_OK) and Path(given).is_file():
            return Path(given)
        raise error_of("ngrok_missing", f"PYNGROK_NGROK_PATH is {given}, which cannot be run")
    for folder in environ.get("PATH", os.defpath).split(os.pathsep):
        found = shutil.which("ngrok", path=folder) if folder else None
        if found is not None and not _is_pyngroks_script(Path(found)):
            return Path(found)
    if (own := installed_path(environ)).exists():
        return own
    raise error_of("ngrok_missing")


def _is_pyngroks_script(path: Path) -> bool:
    """Whether it is the script that pyngrok puts beside Python: it downloads the real one when it runs."""
    with path.open("rb") as file:
        head = file.read(512)
    return head.startswith(b"#!") and b"pyngrok" in head


def home_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where ngrok and pyngrok keep the user's configuration and binary (pyngrok/installer.py: get_default_ngrok_dir)."""
    home = Path(environ.get("HOME") or Path.home())
    if os.uname().sysname == "Darwin":
        return home / "Library" / "Application Support" / "ngrok"
    return Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "ngrok"


def installed_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Where pyngrok installs the binary."""
    return home_folder(environ) / "ngrok"


async def version_of(binary: Path) -> str:
    """What the binary says it is. Raises `TunnelError`: it does not run, or is too old to be driven."""
    try:
        with trio.fail_after(_VERSION_DEADLINE):
            done = await trio.run_process(
                [binary, "--version"],
                env={"PATH": os.defpath, "HOME": os.environ.get("HOME", "/")},
                stdin=subprocess.DEVNULL,
                capture_stdout=True,
                stderr=subprocess.STDOUT,
                check=False,
            )
    except trio.TooSlowError:
        raise error_of("ngrok_unusable", f"{binary} --version does not answer") from None
    except OSError as error:
        raise error_of("ngrok_unusable", f"{binary}: {error.strerror}") from None
    said = done.stdout.decode(errors="replace")
    found = re.search(r"version (\d+)\.(\d+)\S*", said)
    if found is None:
        first = said.strip().partition("\n")[0][:_SAYING]
        raise error_of("ngrok_unusable", f"{binary} --version says: {first or 'nothing'}")
    if (int(found[1]), int(found[2])) < OLDEST:
        raise error_of("ngrok_too_old", f"it has {found[0]}, footlight needs {OLDEST[0]}.{OLDEST[1]} or newer")
    return found[0].removeprefix("version ")


def find_authtoken(given: str | None, environ: Mapping[str, str] = os.environ) -> str | None:
    """The authtoken given, else the one in the user's own ngrok configuration."""
    if given:
        return given
    try:
        kept = _KEPT_TOKEN.search((home_folder(environ) / "ngrok.yml").read_text(errors="replace"))
    except OSError:
        return None
    return kept[1] if kept else None


def write_config(path: Path, authtoken: str) -> None:
    """The agent's configuration, for its owner's eyes only: a token in a command line is for everybody's."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(_CONFIG.format(authtoken=json.dumps(authtoken)))


def require_authtoken(given: str | None, environ: Mapping[str, str] = os.environ) -> str:
    """The authtoken. Raises `TunnelError` where none is configured."""
    token = find_authtoken(given, environ)
    if token is None:
        raise error_of("ngrok_no_token")
    return token
