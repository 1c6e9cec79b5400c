"""Finding files by name, and lines by pattern.

A pattern of Python's `re` may take a time that grows exponentially with a line, and holds the interpreter's lock meanwhile: no
bound on the text helps. So patterns are grep's business, in a sandbox of its own that is killed at its deadline; here is only
the command. Names are matched segment by segment through the one door, which takes a time that the names bound.
"""

import re
import shlex
from fnmatch import fnmatchcase

from daemon.workspace.files import MOUNT, Refused, Workspace, relative

MAX_FOUND = 1000  # names or lines
_MAX_LINE = 2000  # bytes of a line that are shown
_MAX_PATTERN = 1000  # characters
_MAX_CHOICES = 64  # of the braces in one pattern
_BRACES = re.compile(r"\{([^{}]*)\}")
_MEANS_MORE = re.compile(r"[\\^$.|?*+()\[\]{}]")  # a pattern without any of these is plain text


def find_files(workspace: Workspace, pattern: str, path: str | None) -> list[str]:
    """The paths of the files whose path beneath `path` matches, the newest first; blocking.

    `*` and `?` stay within a name, `**` spans folders, `{a,b}` is a choice.
    """
    if len(pattern) > _MAX_PATTERN or pattern.startswith("/") or ".." in pattern.split("/"):
        raise Refused("the pattern must be a short one, beneath the workspace")
    folder = _folder(path)
    choices = [choice.split("/") for choice in _choices(pattern)]
    found = [
        (stamp, name)
        for name, stamp in workspace.stamps().items()
        if name.startswith(folder) and any(_matches(name[len(folder) :].split("/"), choice) for choice in choices)
    ]
    return [name for _, name in sorted(found, key=lambda each: (-each[0][0], each[1]))]


def find_text(workspace: Workspace, pattern: str, path: str | None) -> list[str]:
    """The lines that hold a plain text, as grep would show them; blocking. `Refused` for a pattern that is more than a text."""
    if _MEANS_MORE.search(pattern):
        raise Refused("without a sandbox only plain text can be looked for")
    folder, text, found = _folder(path), pattern.encode(errors="replace"), list[str]()
    for name in workspace.files():
        if not (name.startswith(folder) or name == folder.rstrip("/")):
            continue
        try:
            data = workspace.read(name)
        except Refused:
            continue
        if b"\0" in data or text not in data:
            continue
        for number, line in enumerate(data.split(b"\n"), 1):
            if text in line:
                found.append(f"{name}:{number}:{line[:_MAX_LINE].decode(errors='replace')}")
                if len(found) > MAX_FOUND:
                    return found
    return found


def grep_command(pattern: str, path: str | None) -> str:
    """What a shell in the workspace is told, to print matching lines with their places; its exit code is grep's. Pure."""
    if len(pattern) > _MAX_PATTERN or "\0" in pattern:
        raise Refused("the pattern is too long")
    where = shlex.quote(_folder(path).rstrip("/")) if _folder(path) else ""
    # -D skip: a FIFO would be waited for. -I: binary files are left out.
    options = "-rHnIP -D skip --exclude-dir=.git --exclude-dir=node_modules"
    cut = f"cut -b 1-{_MAX_LINE} | head -n {MAX_FOUND + 1}"
    return f"grep {options} -e {shlex.quote(pattern)} -- {where} | {cut}; (exit ${{PIPESTATUS[0]}})"


def shown(found: list[str]) -> str:
    """A list of what was found, as the model gets it."""
    more = f"\n[more than {MAX_FOUND}: ask for less]" if len(found) > MAX_FOUND else ""
    return "\n".join(found[:MAX_FOUND]) + more if found else "no matches"


def _folder(path: str | None) -> str:
    """Where to look, with a slash at its end; the empty text is the whole workspace."""
    whole = path is None or path.removeprefix(MOUNT).strip("/.") == ""
    return "" if path is None or whole else relative(path) + "/"


def _matches(names: list[str], pattern: list[str]) -> bool:
    """Whether a path matches a pattern, both in segments; linear in the one times the other."""
    reached = {0}  # how much of the pattern may stand before what comes next
    for name in names:
        following = set()
        for at in _spans(reached, pattern):
            if at < len(pattern):
                if pattern[at] == "**":
                    following.add(at)
                elif fnmatchcase(name, pattern[at]):
                    following.add(at + 1)
        reached = following
    return len(pattern) in _spans(reached, pattern)


def _spans(reached: set[int], pattern: list[str]) -> set[int]:
    """With all that `**` may leave out."""
    found = set(reached)
    for at in sorted(reached):
        while at < len(pattern) and pattern[at] == "**":
            at += 1
            found.add(at)
    return found


def _choices(pattern: str) -> list[str]:
    """A pattern without braces for each choice that they give."""
    done, open_ = list[str](), [pattern]
    while open_:
        each = open_.pop()
        braces = _BRACES.search(each)
        if braces is None:
            done.append(each)
        else:
            open_ += [each[: braces.start()] + choice + each[braces.end() :] for choice in braces[1].split(",")]
        if len(done) + len(open_) > _MAX_CHOICES:
            raise Refused("the pattern gives too many choices")
    return done
