"""The system call filter, run by a small machine for its instructions; tests/security/ shows it at work."""

import errno
import struct

import pytest

from daemon.workspace import seccomp

ALLOW, ERRNO = 0x7FFF0000, 0x00050000
X86, ARM = 0xC000003E, 0xC00000B7


def verdict(machine: str, architecture: int, number: int, argument: int = 0) -> int:
    program = seccomp.program(machine)
    assert program is not None
    steps = [struct.unpack_from("<HBBI", program, at) for at in range(0, len(program), 8)]
    at, loaded = 0, 0
    while True:
        code, then, otherwise, value = steps[at]
        at += 1
        match code:
            case 0x20:
                loaded = {0: number, 4: architecture, 16: argument}[value]
            case 0x15:
                at += then if loaded == value else otherwise
            case 0x35:
                at += then if loaded >= value else otherwise
            case 0x06:
                return value


@pytest.mark.parametrize(("machine", "architecture", "column"), [("x86_64", X86, 0), ("aarch64", ARM, 1)])
def test_each_call_gets_its_verdict(machine, architecture, column):
    refused = {numbers[column] for numbers in seccomp._REFUSED.values()}
    socket = seccomp._SOCKET[column]
    for number in range(500):
        if number != socket:
            expected = ERRNO | errno.EPERM if number in refused else ALLOW
            assert verdict(machine, architecture, number) == expected
    for family in range(50):
        expected = ALLOW if family in {1, 2, 10, 16} else ERRNO | errno.EAFNOSUPPORT
        assert verdict(machine, architecture, socket, family) == expected


def test_other_numberings_are_refused():
    assert verdict("x86_64", 0x40000003, 1) == ERRNO | errno.ENOSYS  # i386's calls have other numbers
    assert verdict("x86_64", X86, 250 | 0x40000000) == ERRNO | errno.ENOSYS  # x32


def test_unknown_architecture_has_no_filter():
    assert seccomp.program("s390x") is None
