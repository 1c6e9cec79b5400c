"""What a sandbox is, as bubblewrap's arguments; pure.

Namespaces of its own for users, processes, network, IPC and names; no capability; read-only system files and two small
tmpfs; one writable folder that outlives it. Facts 3 and 5 behind the form: `--clearenv` leaves bubblewrap's own environment
readable in /proc/1/environ, so that is what must be empty, and bubblewrap started by root keeps every capability unless told.
"""

from dataclasses import dataclass
from pathlib import Path

from daemon.workspace.files import MOUNT

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HOST_ENVIRONMENT = {"PATH": PATH}  # of bubblewrap itself
_SYSTEM = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
# World-readable and without secrets. /etc/ssl as a whole is not: root's sandbox could read its private keys.
_ETC = ("/etc/alternatives", "/etc/ld.so.cache", "/etc/localtime", "/etc/mime.types")
_ETC_NETWORK = ("/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/hosts", "/etc/ssl/certs", "/etc/ca-certificates")
_USER = 1000
PASSWD = f"agent:x:{_USER}:{_USER}::/tmp:/bin/bash\n".encode()
SHELL = ("/bin/bash", "--norc", "--noprofile", "--noediting", "-i")  # interactive: SIGINT ends a command, not the shell


@dataclass(frozen=True)
class Limits:
    """What one sandbox may take; bytes and seconds."""

    memory: int
    processes: int
    file: int
    tmp: int
    cpu: int


def environment(home: str = "/tmp") -> dict[str, str]:  # noqa: S108  # its own tmpfs
    """What the agent's commands find in their environment: nothing of the daemon's."""
    return {
        "PATH": PATH,
        "HOME": home,
        "USER": "agent",
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "PAGER": "cat",
        "PS1": "",
        "PS2": "",
    }


def arguments(
    bwrap: str, workspace: Path, limits: Limits, *, network: bool, seccomp: int, passwd: int, root: Path
) -> list[str]:
    """The command line that runs the shell in a sandbox; `seccomp` and `passwd` are descriptors that bubblewrap reads from.

    `root` is the host's, whose merged folders (/bin -> /usr/bin) are found there.
    """
    binds = [arg for path in _ETC + (_ETC_NETWORK if network else ()) for arg in ("--ro-bind-try", path, path)]
    return [
        bwrap,
        *("--unshare-all", "--unshare-user", "--disable-userns", "--uid", str(_USER), "--gid", str(_USER)),
        *(("--share-net",) if network else ()),
        *("--cap-drop", "ALL", "--seccomp", str(seccomp)),
        *("--die-with-parent", "--new-session", "--hostname", "sandbox", "--clearenv"),
        *(arg for name, value in environment().items() for arg in ("--setenv", name, value)),
        *("--ro-bind", "/usr", "/usr"),
        *(arg for name in _SYSTEM for arg in _system(root / name)),
        *binds,
        *("--ro-bind-data", str(passwd), "/etc/passwd"),
        # Root owns /proc/sys, and a sandbox of root's is root to it, capabilities or not: core_pattern would be a way out.
        *("--proc", "/proc", "--remount-ro", "/proc", "--dev", "/dev"),
        *("--size", str(limits.tmp), "--tmpfs", "/dev/shm", "--remount-ro", "/dev"),  # noqa: S108
        *("--size", str(limits.tmp), "--tmpfs", "/tmp"),  # noqa: S108
        *("--bind", str(workspace), MOUNT, "--remount-ro", "/", "--chdir", MOUNT),
        "--",
        *SHELL,
    ]


def _system(path: Path) -> tuple[str, ...]:
    """A folder of the system as it is on the host: a link into /usr, or a folder of its own."""
    inside = f"/{path.name}"
    if path.is_symlink():
        return ("--symlink", str(path.readlink()).removeprefix("/"), inside)
    return ("--ro-bind", str(path), inside) if path.is_dir() else ()


def prelude(command: list[str], groups: list[Path]) -> list[str]:
    """A command that enters its control groups and lowers its priority before it becomes `command`, so that nothing of it escapes."""
    script = 'while [ "$1" != -- ]; do echo $$ >"$1" || exit 97; shift; done; shift; exec nice -n 10 "$@"'
    return ["/bin/sh", "-c", script, "sh", *(str(group / "cgroup.procs") for group in groups), "--", *command]


def first_lines(limits: Limits, status: int) -> bytes:
    """What the shell is told before its first command: its limits, and to prove on `status` what it may do."""
    kilo = 1024  # bash counts files and memory in these
    wanted = {"c": 0, "f": limits.file // kilo, "d": limits.memory // kilo, "t": limits.cpu, "u": limits.processes}
    lines = [
        "set +H +o history; unset HISTFILE; trap '' XFSZ",  # who writes too much is told so, not killed
        *(f"ulimit -{name} {value}" for name, value in wanted.items()),
        f"[ -w /proc/sys/kernel/core_pattern ] || printf 'Proc:\\tread-only\\n' >&{status}",
        f"while read -r __line; do printf '%s\\n' \"$__line\" >&{status}; done </proc/self/status; unset __line",
        f"printf '0 %d\\n' $? >&{status}",
    ]
    return "\n".join(lines).encode() + b"\n"
