"""The system calls that a sandbox refuses beyond what its namespaces already take away; pure.

Not all of the kernel knows namespaces: a vsock reaches the machine's hypervisor whatever the network namespace, keyrings are
inherited, and the calls below have a history of holes that no program of an agent needs. They get EPERM, foreign socket
families EAFNOSUPPORT, and another architecture's calls ENOSYS.
"""

import errno
import platform
import struct

# name -> (x86_64, every architecture of the generic table: aarch64, riscv64)
_REFUSED = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "bpf": (321, 280),
    "delete_module": (176, 106),
    "finit_module": (313, 273),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "open_by_handle_at": (304, 265),
    "perf_event_open": (298, 241),
    "quotactl": (179, 60),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "userfaultfd": (323, 282),
}
_SOCKET = (41, 198)
_FAMILIES = (1, 2, 10, 16)  # Unix, IPv4, IPv6, netlink: all of them end at the network namespace
_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1), "riscv64": (0xC00000F3, 1)}
_X32 = 0x40000000  # x86_64's second table: the same calls under other numbers

_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_JMP|JGE|K, BPF_RET|K
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # where they stand in struct seccomp_data; both are little endian
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000


def program(machine: str = platform.machine()) -> bytes | None:
    """The filter as bubblewrap's `--seccomp` reads it; None for an architecture whose numbers are not known here."""
    if machine not in _ARCHITECTURES:
        return None
    audit, column = _ARCHITECTURES[machine]
    refused = sorted(numbers[column] for numbers in _REFUSED.values())
    families = len(_FAMILIES)
    code = [
        _step(_LOAD, _ARCHITECTURE),
        _step(_EQUAL, audit, 1, 0),
        _step(_RETURN, _ERRNO | errno.ENOSYS),
        _step(_LOAD, _NUMBER),
        _step(_AT_LEAST, _X32, 0, 1),
        _step(_RETURN, _ERRNO | errno.ENOSYS),
    ]
    for at, number in enumerate(refused):
        code.append(_step(_EQUAL, number, len(refused) - at + families + 3, 0))
    code += [_step(_EQUAL, _SOCKET[column], 0, families + 2), _step(_LOAD, _FIRST_ARGUMENT)]
    code += [_step(_EQUAL, family, families - at, 0) for at, family in enumerate(_FAMILIES)]
    code += [
        _step(_RETURN, _ERRNO | errno.EAFNOSUPPORT),
        _step(_RETURN, _ALLOW),
        _step(_RETURN, _ERRNO | errno.EPERM),
    ]
    return b"".join(code)


def _step(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    """One struct sock_filter; jumps count from the next step."""
    return struct.pack("<HBBI", code, then, otherwise, value)
