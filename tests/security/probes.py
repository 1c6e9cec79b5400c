"""What an attacker in the sandbox tries, one probe each; run in there by the system's own Python, with nothing but its library.

`python3 probes.py FACTS [NAME ...]` prints a line for each: its name, and what it got hold of, or `refused: why`. FACTS is what
the attacker is made a present of, as JSON: ports, paths and names of the host's.
"""

import contextlib
import ctypes
import glob
import json
import os
import platform
import socket
import struct
import subprocess
import sys

_LIBC = ctypes.CDLL(None, use_errno=True)
_X86 = platform.machine() == "x86_64"


class Refused(Exception):
    pass


def call(name, *args):
    """A system call by its name; what it returned."""
    number = _NUMBERS[name][0 if _X86 else 1]
    result = _LIBC.syscall(ctypes.c_long(number), *args)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return f"{name} returned {result}"


_NUMBERS = {
    "bpf": (321, 280),
    "io_uring_setup": (425, 425),
    "keyctl": (250, 219),
    "mount": (165, 40),
    "open_by_handle_at": (304, 265),
    "perf_event_open": (298, 241),
    "pivot_root": (155, 41),
    "ptrace": (101, 117),
    "setns": (308, 268),
    "sethostname": (170, 161),
    "settimeofday": (164, 170),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
}


def connect(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as one:
        one.settimeout(2)
        one.connect(address)
        return f"connected to {address!r}"


def read(path):
    with open(path, "rb") as file:
        return f"{path}: {file.read(100)!r}"


def write(path):
    """Opening is enough, and does no harm to a machine whose sandbox fails."""
    os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600))
    return f"{path} can be written"


def contains(needle, paths):
    """Where a text stands, in whatever of these can be read."""
    found = []
    for path in paths:
        with contextlib.suppress(OSError), open(path, "rb") as file:
            if needle in file.read(1 << 20):
                found.append(path)
    if not found:
        raise Refused("in none that can be read")
    return ", ".join(found)


# --- the network


def tcp_to_the_hosts_loopback(facts):
    return connect(socket.AF_INET, ("127.0.0.1", facts["tcp"]))


def tcp6_to_the_hosts_loopback(facts):
    return connect(socket.AF_INET6, ("::1", facts["tcp6"]))


def tcp_to_the_internet(_):
    return connect(socket.AF_INET, ("1.1.1.1", 443))


def tcp6_to_the_internet(_):
    return connect(socket.AF_INET6, ("2606:4700:4700::1111", 443))


def udp_to_the_hosts_loopback(facts):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.settimeout(0.5)
        one.sendto(b"hello", ("127.0.0.1", facts["udp"]))
        return one.recv(100)


def udp_to_the_internet(_):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        return one.sendto(b"hello", ("1.1.1.1", 53))


def dns(_):
    return socket.getaddrinfo("example.com", 443)


def icmp(_):
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP):
        return "raw socket"


def icmp_as_datagrams(_):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as one:
        return one.sendto(struct.pack("!BBHHH", 8, 0, 0, 1, 1), ("1.1.1.1", 0))


def packet_socket(_):
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW):
        return "packet socket"


def vsock_to_the_hypervisor(_):
    with socket.socket(getattr(socket, "AF_VSOCK", 40), socket.SOCK_STREAM):
        return "vsock"


def crypto_socket(_):
    with socket.socket(getattr(socket, "AF_ALG", 38), socket.SOCK_SEQPACKET):
        return "AF_ALG"


def abstract_unix_socket(facts):
    return connect(socket.AF_UNIX, "\0" + facts["abstract"])


def unix_socket_in_a_folder(facts):
    return connect(socket.AF_UNIX, facts["unix"])


def dev_tcp(facts):
    script = f"exec 3<>/dev/tcp/127.0.0.1/{facts['tcp']} && echo open"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(done.stderr.strip().splitlines()[-1])
    return done.stdout


def other_interfaces(_):
    names = [name for _, name in socket.if_nameindex() if name != "lo"]
    if not names:
        raise Refused("only lo")
    return names


# --- files


def read_a_file_of_the_host(facts):
    return read(facts["file"])


def read_the_daemons_state(facts):
    return os.listdir(facts["state"])


def read_shadow(_):
    return read("/etc/shadow")


def list_root(_):
    return os.listdir("/root")


def list_home(_):
    return os.listdir("/home")


def read_by_the_root_of_process_1(facts):
    return read("/proc/1/root" + facts["file"])


def read_by_a_symlink(facts):
    with contextlib.suppress(FileExistsError):
        os.symlink(facts["file"], "link-out")
    return read("link-out")


def read_above_the_workspace(_):
    return read("../footlight.db")


def write_usr(_):
    return write("/usr/planted")


def write_etc(_):
    return write("/etc/planted")


def write_passwd(_):
    return write("/etc/passwd")


def write_top(_):
    return write("/planted")


def write_dev(_):
    return write("/dev/planted")


def write_a_file_of_the_host(facts):
    return write(facts["file"])


def write_core_pattern(_):
    return write("/proc/sys/kernel/core_pattern")


def write_anything_in_proc(_):
    """Root owns the files of /proc, and the sandbox of a daemon that root runs is root to them."""
    found = []
    for folder, _folders, names in os.walk("/proc"):
        for name in names:
            path = os.path.join(folder, name)
            if not os.path.islink(path):
                with contextlib.suppress(OSError):
                    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
                    found.append(path)
    if not found:
        raise Refused("no file of it can be opened for writing")
    return found[:20]


def write_sysrq(_):
    return write("/proc/sysrq-trigger")


def list_sys(_):
    return os.listdir("/sys/kernel")


def kernel_memory(_):
    return read("/proc/kcore")


def disk(_):
    found = glob.glob("/dev/sd*") + glob.glob("/dev/vd*") + glob.glob("/dev/nvme*") + glob.glob("/dev/kvm")
    if not found:
        raise Refused("none in /dev")
    return found


def kernel_log(_):
    return read("/dev/kmsg")


# --- processes


def processes_of_the_host(facts):
    return contains(b"sleep\0" + facts["process"].encode(), glob.glob("/proc/[0-9]*/cmdline"))


def secret_in_an_environment(facts):
    return contains(b"KEY=" + facts["secret"].encode(), glob.glob("/proc/[0-9]*/environ"))


def secret_in_my_environment(facts):
    found = [name for name, value in os.environ.items() if facts["secret"] in value]
    if not found:
        raise Refused("in none of them")
    return found


def descriptors_of_the_daemon(_):
    found = []
    for path in glob.glob("/proc/[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            target = os.readlink(path)
            if target.startswith("/") and not target.startswith(("/dev/", "/workspace", "/proc/", "/usr/", "/memfd:")):
                found.append(f"{path} -> {target}")
    if not found:
        raise Refused("none beyond pipes and the workspace")
    return found


def kill_the_daemon(facts):
    os.kill(facts["pid"], 0)
    return "the daemon can be signalled"


def ptrace_the_daemon(facts):
    return call("ptrace", 16, facts["pid"], 0, 0)


# --- rights


def capabilities(_):
    with open("/proc/self/status") as status:
        found = dict(line.rstrip().split(":\t", 1) for line in status if ":\t" in line.rstrip())
    sets = {name: found[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    if any(int(value, 16) for value in sets.values()) or found["NoNewPrivs"] != "1" or found["Seccomp"] != "2":
        return sets, found["NoNewPrivs"], found["Seccomp"]
    raise Refused("all sets are empty, NoNewPrivs 1, Seccomp 2")


def become_root(_):
    os.setuid(0)
    return os.getuid()


def become_another(_):
    os.setuid(1001)
    return os.getuid()


def setuid_program(_):
    done = subprocess.run(["su", "-c", "id -u", "root"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode:
        raise Refused(done.stderr.decode().strip())
    return done.stdout


def mount_tmpfs(_):
    os.makedirs("mount-here", exist_ok=True)
    return call("mount", b"none", b"mount-here", b"tmpfs", 0, None)


def remount_writable(_):
    return call("mount", None, b"/usr", None, ctypes.c_ulong(32 | 4096), None)


def make_a_device(_):
    os.mknod("device", 0o600 | 0o060000, os.makedev(254, 0))
    return read("device")


def change_root(_):
    os.chroot("/tmp")
    return "chroot"


def turn_the_root(_):
    return call("pivot_root", b"/workspace", b"/workspace")


def user_namespace(_):
    return call("unshare", 0x10000000)


def mount_namespace(_):
    return call("unshare", 0x00020000)


def namespace_of_process_1(_):
    fd = os.open("/proc/1/ns/mnt", os.O_RDONLY)
    return call("setns", fd, 0)


def keyring(_):
    return call("keyctl", 0, ctypes.c_long(-3), 0)


def bpf(_):
    return call("bpf", 0, 0, 0)


def perf_events(_):
    return call("perf_event_open", ctypes.create_string_buffer(struct.pack("II", 1, 128) + bytes(120)), 0, -1, -1, 0)


def io_uring(_):
    return call("io_uring_setup", 1, ctypes.create_string_buffer(120))


def userfault(_):
    return call("userfaultfd", 0)


def file_by_its_handle(_):
    return call("open_by_handle_at", -100, ctypes.create_string_buffer(struct.pack("Ii", 8, 1) + bytes(8)), 0)


def host_name(_):
    return call("sethostname", b"owned", 5)


def the_time(_):
    return call("settimeofday", ctypes.create_string_buffer(struct.pack("qq", 1 << 31, 0)), None)


def priority(_):
    os.setpriority(os.PRIO_PROCESS, 0, -5)
    return "a higher priority"


def terminal_input(_):
    fd = os.open("/dev/tty", os.O_RDWR)
    return fd


PROBES = {
    name: probe
    for name, probe in list(globals().items())
    if callable(probe)
    and getattr(probe, "__module__", "") == __name__
    and name not in {"Refused", "call", "connect", "read", "write", "contains"}
}


def main(facts, *names):
    facts = json.loads(facts)
    for name in names or PROBES:
        try:
            got = f"OPEN: {PROBES[name](facts)!r}"
        except (OSError, Refused) as error:
            got = f"refused: {error}"
        print(name, got, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
