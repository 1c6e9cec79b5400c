"""Who may call the API; pure.

Loopback is no wall: a page in the user's browser reaches it too, and a name that an attacker owns may point to it. So the Host
must be one of ours, and an Origin, where there is one, too (exact, no patterns).
"""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from hmac import compare_digest
from typing import Any

from daemon.config import Config
from daemon.errors import CallerError

_LOOPBACK_NAMES = {"localhost", "127.0.0.1", "::1"}
_WILDCARDS = {"0.0.0.0", "::", ""}  # noqa: S104
_FROM_A_PROXY = frozenset(
    {b"x-forwarded-for", b"forwarded", b"x-real-ip", b"via", b"x-forwarded-host", b"x-forwarded-proto"}
)
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::[0-9]{0,5})?", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True)
class Caller:
    """What a request says of where it comes from."""

    host: str | None  # the Host header
    origin: str | None
    bearer: str | None
    peer: str | None  # the address it came from
    local: str | None  # the address it came to
    forwarded: bool  # a proxy passed it on
    preflight: bool = False  # a browser asks whether its page may; it never sends a token with that


def caller_of(scope: Mapping[str, Any]) -> Caller:
    """From an ASGI request as it came: each header once, those sent twice joined, so that none hides behind another."""
    headers: dict[bytes, str] = {}
    for name, value in scope["headers"]:
        text = value.decode("latin-1")
        headers[name] = f"{headers[name]}, {text}" if name in headers else text
    scheme, _, token = headers.get(b"authorization", "").partition(" ")
    return Caller(
        host=headers.get(b"host"),
        origin=headers.get(b"origin"),
        bearer=token.strip() if scheme.lower() == "bearer" else None,
        peer=scope["client"][0] if scope.get("client") else None,
        local=scope["server"][0] if scope.get("server") else None,
        forwarded=not headers.keys().isdisjoint(_FROM_A_PROXY),
        preflight=scope["method"] == "OPTIONS" and b"access-control-request-method" in headers,
    )


@lru_cache(1024)
def is_loopback(address: str | None) -> bool:
    """Whether an address or a name can only be this machine."""
    if address is None:
        return False
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def host_name(host: str) -> str:
    """A Host header without its port and brackets; empty where it is no Host at all."""
    found = _HOST.fullmatch(host)
    return (found[1] or found[2]).lower() if found else ""


@lru_cache(16)
def _names(host: str, allowed: tuple[str, ...]) -> frozenset[str]:
    """The names that the API answers to, besides the address that a caller came to."""
    names = {host_name(name) or name.lower() for name in allowed} | {host.lower()}
    return frozenset(names | _LOOPBACK_NAMES if is_loopback(host) or host in _WILDCARDS else names)


def own_origin(caller: Caller, config: Config) -> bool:
    """Whether the Origin may call: the daemon's own, or one that was allowed."""
    host = (caller.host or "").lower()
    return caller.origin in {f"http://{host}", f"https://{host}", *config.allow_origin}


def check(caller: Caller, config: Config) -> None:
    """Return if the caller may go on; `CallerError` says why not."""
    name = host_name(caller.host or "")
    local = caller.local if config.host in _WILDCARDS else None
    if not name or (name not in _names(config.host, config.allow_host) and name != local):
        raise CallerError("forbidden_host", 403, "this Host is not one of the daemon's; see --allow-host")
    if caller.origin is not None and not own_origin(caller, config):
        raise CallerError("forbidden_origin", 403, "this Origin may not call; see --allow-origin")
    if caller.preflight or (is_loopback(caller.peer) and not caller.forwarded):
        return
    token = (config.api_token or "").encode()
    # A header arrives decoded as Latin-1, whatever its bytes were.
    if not token or not compare_digest((caller.bearer or "").encode("latin-1", "replace"), token):
        raise CallerError("unauthorized", 401, "a caller from another machine needs the API token as bearer")
