"""Who may call the API; pure.

Loopback is no wall: a page in the user's browser reaches it too, and a name that an attacker owns may point to it. So the Host
must be one of ours, and an Origin, where there is one, too (exact, no patterns).
"""

import ipaddress
from dataclasses import dataclass
from hmac import compare_digest

from daemon.config import Config
from daemon.errors import CallerError

_LOOPBACK_NAMES = {"localhost", "127.0.0.1", "::1"}
_WILDCARDS = {"0.0.0.0", "::", ""}  # noqa: S104


@dataclass(frozen=True)
class Caller:
    """What a request says of where it comes from."""

    host: str | None  # the Host header
    origin: str | None
    bearer: str | None
    peer: str | None  # the address it came from
    local: str | None  # the address it came to
    forwarded: bool  # a proxy passed it on


def is_loopback(address: str | None) -> bool:
    """Whether an address or a name can only be this machine."""
    if address is None:
        return False
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def host_name(host: str) -> str:
    """A Host header without its port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def own_origin(caller: Caller, config: Config) -> bool:
    """Whether the Origin may call: the daemon's own, or one that was allowed."""
    origin = caller.origin
    return origin in {f"http://{caller.host}", f"https://{caller.host}"} or origin in config.allow_origin


def check(caller: Caller, config: Config) -> None:
    """Return if the caller may go on; `CallerError` says why not."""
    name = host_name(caller.host or "")
    names = {host.lower() for host in config.allow_host}
    if is_loopback(config.host) or config.host in _WILDCARDS:
        names |= _LOOPBACK_NAMES
    if config.host in _WILDCARDS and caller.local:
        names.add(caller.local)
    if name not in names | {config.host.lower()} - _WILDCARDS:
        raise CallerError("forbidden_host", 403, "this Host is not one of the daemon's; see --allow-host")
    if caller.origin is not None and not own_origin(caller, config):
        raise CallerError("forbidden_origin", 403, "this Origin may not call; see --allow-origin")
    if is_loopback(caller.peer) and not caller.forwarded:
        return
    token = (config.api_token or "").encode()
    if not token or not compare_digest((caller.bearer or "").encode("utf-8", "replace"), token):
        raise CallerError("unauthorized", 401, "a caller from another machine needs the API token as bearer")
