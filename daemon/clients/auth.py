"""Who may enter a session's port; pure."""

import secrets
from dataclasses import dataclass, field
from enum import StrEnum
from hmac import compare_digest


class Role(StrEnum):
    """What a token allows."""

    control = "control"  # follow, prompt, approve, stop
    watch = "watch"  # follow


def _secret() -> str:
    return secrets.token_urlsafe(24)  # 192 bits: not to be guessed, short enough for a URL


@dataclass(frozen=True)
class Tokens:
    """The secrets of one run of a session; they end with it."""

    control: str = field(default_factory=_secret, repr=False)
    watch: str = field(default_factory=_secret, repr=False)
    preview: str = field(default_factory=_secret, repr=False)  # the cookie's value: opens the preview and nothing else

    def role_of(self, token: str | None) -> Role | None:
        """The role that a token gives, in the same time for any wrong one."""
        given = (token or "").encode("utf-8", "replace")
        control = compare_digest(given, self.control.encode())
        watch = compare_digest(given, self.watch.encode())
        return Role.control if control else Role.watch if watch else None

    def opens_preview(self, cookie: str | None) -> bool:
        """Whether a cookie is this session's."""
        return compare_digest((cookie or "").encode("utf-8", "replace"), self.preview.encode())
