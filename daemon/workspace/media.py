"""What HTTP says of a file: its type, when it was made, whether a visitor has it already; pure."""

import mimetypes
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import PurePosixPath

_TYPES = {
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}
# What a ZIP can say; an agent may give its files any time, up to years that no date can hold.
_FIRST, _LAST = (datetime(year, 1, 1, tzinfo=UTC).timestamp() for year in (1980, 2107))


def content_type(name: str) -> str:
    """The type of a file, by its name."""
    suffix = PurePosixPath(name).suffix.lower()
    kind = _TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
    textual = kind.startswith("text/") or kind in {"application/json", "application/manifest+json", "image/svg+xml"}
    return f"{kind}; charset=utf-8" if textual else kind


def modified(mtime_ns: int) -> datetime:
    """When a file was last changed, within the years 1980 to 2107."""
    return datetime.fromtimestamp(min(max(mtime_ns / 10**9, _FIRST), _LAST), UTC)


def tag_of(size: int, mtime_ns: int) -> str:
    """What changes whenever a file does."""
    return f"{mtime_ns:x}-{size:x}"


def last_modified(mtime_ns: int) -> str:
    """The same as `modified`, for a header."""
    return format_datetime(modified(mtime_ns), usegmt=True)


def unchanged(etag: str, mtime_ns: int, *, none_match: str | None, modified_since: str | None) -> bool:
    """Whether a visitor with these validators has the file already; the etag counts alone where there is one."""
    if none_match is not None:
        return none_match.strip() == "*" or etag in {tag.strip().removeprefix("W/") for tag in none_match.split(",")}
    try:
        since = parsedate_to_datetime(modified_since or "").timestamp()
    except (ValueError, TypeError, OverflowError):
        return False
    return int(modified(mtime_ns).timestamp()) <= since
