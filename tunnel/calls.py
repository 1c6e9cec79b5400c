"""pyngrok, call by call: each blocks, so each runs in a thread, under a deadline that it has not itself.

pyngrok's own entry points keep one table for all programs in a process, start an agent unasked, and may block for ever with a
lock held (docs/design.md, D16). So an agent is started by `start`, its endpoints are spoken to by pyngrok's API requests under
names of ours, and whoever calls kills the agent's process when a call does not return: then the call does. Agents are started
one at a time; an API request touches none of pyngrok's tables, so a session that ends need not wait for another one's endpoint.
"""

import http.client
import logging
import os
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import quote

from pyngrok import installer, ngrok, process
from pyngrok.conf import PyngrokConfig
from pyngrok.exception import PyngrokError, PyngrokNgrokHTTPError
from pyngrok.log import NgrokLog

from tunnel import TunnelError
from tunnel.codes import error_from, said_by_api
from tunnel.leash import Leash

_LOCAL = "127.0.0.1"
_KEEP_LINES = 50
_NIL = {"nil", "<nil>"}


class Line(NamedTuple):
    """What a line of the agent's log says."""

    message: str
    error: str


class Process:
    """A started agent."""

    def __init__(self, popen: Any, api: str) -> None:
        self.popen = popen
        self.api = api


def start(leash: Leash, secret: str, timeout: float) -> Process:
    """Start an agent and wait up to `timeout` seconds until it has its session. Raises `TunnelError`; then no process is left."""
    _quiet()
    config = PyngrokConfig(
        ngrok_path=str(leash.script),
        config_path=str(leash.config),
        monitor_thread=False,  # `follow` reads to the last line
        startup_timeout=timeout,  # type: ignore[arg-type]  # it is only added to the time
        start_new_session=True,  # Ctrl+C is for us, and its group is its own
    )
    config.auth_token = None  # it is in the configuration file; pyngrok would put it into the command line
    try:
        started = process.get_process(config)
    except (PyngrokError, OSError, http.client.HTTPException) as error:
        popen = _popen_of(error)
        printed = [*(log.line for log in getattr(error, "ngrok_logs", [])), *_rest_of(popen)]
        process.kill_process(config.ngrok_path)
        text = "\n".join([*printed, str(error)])
        raise error_from(text, "ngrok_unusable", secret, why=_why(printed) or str(error)) from None
    assert started.api_url is not None
    return Process(started.proc, started.api_url)


def follow(leash: Leash, agent: Process, tell: Callable[[Line], object]) -> None:
    """Read the agent's log until it ends: unread, it would stop at 64 KiB. Then nothing of the process is left."""
    with agent.popen.stdout as lines:
        for text in lines:
            line = NgrokLog(text)
            tell(Line(line.msg or "", "" if line.err in _NIL else line.err or ""))
    agent.popen.wait()
    process.kill_process(str(leash.script))  # it has ended: pyngrok forgets it


def create(api: str, name: str, port: int, url: str | None, secret: str, timeout: float) -> str:  # noqa: PLR0917
    """Open an endpoint: its URL."""
    body: dict[str, object] = {"name": name, "upstream": {"url": f"http://{_LOCAL}:{port}"}, "inspect": False}
    if url is not None:
        body["url"] = url
    answer = _request(f"{api}/api/endpoints", "POST", body, timeout, secret)
    return _url_of(answer)


def delete(api: str, name: str, secret: str, timeout: float) -> None:
    """Take an endpoint away; one that is not there is all right."""
    try:
        _request(f"{api}/api/endpoints/{quote(name, safe='')}", "DELETE", None, timeout, secret)
    except TunnelError as error:
        if error.code != _ABSENT:
            raise


def endpoints(api: str, secret: str, timeout: float) -> dict[str, str]:
    """What the agent has open: URL by name."""
    answer = _request(f"{api}/api/endpoints", "GET", None, timeout, secret)
    listed = answer.get("endpoints") or answer.get("tunnels") or []
    return {each["name"]: _url_of(each) for each in listed}


def install(path: str) -> None:
    """Download ngrok to a path, as pyngrok does. Raises `TunnelError`."""
    try:
        installer.install_ngrok(path)
    except PyngrokError as error:
        raise TunnelError("ngrok_install", str(error)) from None


_ABSENT = "ngrok_absent"


def _request(url: str, method: str, body: dict[str, object] | None, timeout: float, secret: str) -> dict[str, Any]:
    try:
        return ngrok.api_request(url, method=method, data=body, timeout=timeout)
    except PyngrokNgrokHTTPError as error:
        if error.status_code == http.HTTPStatus.NOT_FOUND and method == "DELETE":
            raise TunnelError(_ABSENT, "there is no such endpoint") from None
        otherwise = "ngrok_not_ready" if error.status_code == http.HTTPStatus.SERVICE_UNAVAILABLE else "ngrok_refused"
        raise error_from(said_by_api(error.body), otherwise, secret) from None
    except TimeoutError:
        raise error_from(f"{method} was not answered", "ngrok_silent", secret) from None
    except PyngrokError as error:
        silent = "timed out" in str(error)
        raise error_from(str(error), "ngrok_silent" if silent else "ngrok_unreachable", secret) from None
    except (OSError, http.client.HTTPException, ValueError) as error:  # escapes pyngrok: the agent died, or is none
        raise error_from(repr(error), "ngrok_unreachable", secret) from None


def _url_of(answer: dict[str, Any]) -> str:
    # Documented is an endpoint's `url`; a real agent answers a POST with a tunnel's `public_url`.
    url = answer.get("public_url") or answer.get("url")
    if not isinstance(url, str) or not url:
        raise TunnelError("ngrok_refused", "the agent gave no URL")
    return url.rstrip("/")


def _popen_of(error: BaseException) -> Any:
    """The process that a failed start leaves behind; nothing but the frame that failed knows it."""
    trace = error.__traceback__
    while trace is not None:
        if "proc" in trace.tb_frame.f_locals:
            return trace.tb_frame.f_locals["proc"]
        trace = trace.tb_next
    return None


def _rest_of(popen: Any) -> list[str]:
    """What an agent that has ended said after pyngrok stopped to listen, the reason mostly."""
    if popen is None or popen.stdout.closed:
        return []
    with popen.stdout:
        if popen.poll() is None:
            return []
        lines: list[str] = popen.stdout.readlines()[-_KEEP_LINES:]
        return lines


def _why(printed: list[str]) -> str:
    """Of all that an agent has printed that could not start, the words that say why: its first error, else its last line."""
    lines = [line.strip() for line in printed if line.strip()]
    for line in lines:
        error = line.removeprefix("ERROR:") if line.startswith("ERROR:") else NgrokLog(line).err
        if error and error.strip() and error not in _NIL:
            return error
    return (NgrokLog(lines[-1]).msg or lines[-1]) if lines else ""


def _quiet() -> None:
    """Keep pyngrok's log to itself, which quotes the authtoken, and proxies away from the agent's own port."""
    logging.getLogger("pyngrok").setLevel(logging.CRITICAL + 1)
    hosts = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if _LOCAL not in hosts.split(","):
        os.environ["no_proxy"] = ",".join(filter(None, [hosts, _LOCAL, "localhost"]))
