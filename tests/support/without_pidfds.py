"""Runs a program in which pidfd_open is refused, as by an old kernel or a container's seccomp profile.

python -m tests.support.without_pidfds PROGRAM ARGUMENTS
"""

import ctypes
import errno
import os
import platform
import struct
import sys

_PIDFD_OPEN = 434  # the same on all architectures
_NO_NEW_PRIVS, _SET_SECCOMP, _FILTER = 38, 22, 2
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000


def instruction(code: int, if_true: int, if_false: int, value: int) -> bytes:
    """Return one instruction of a classic BPF program."""
    return struct.pack("HBBI", code, if_true, if_false, value)


def refuse_pidfd_open() -> None:
    """Let the kernel refuse pidfd_open to this process and all that it starts."""
    program = b"".join(
        (
            instruction(0x20, 0, 0, 0),  # load the number of the system call
            instruction(0x15, 0, 1, _PIDFD_OPEN),  # if it is not this one, skip the next
            instruction(0x06, 0, 0, _ERRNO | errno.EPERM),
            instruction(0x06, 0, 0, _ALLOW),
        )
    )
    text = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HP", len(program) // 8, ctypes.addressof(text))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((_NO_NEW_PRIVS, 1, 0, 0, 0), (_SET_SECCOMP, _FILTER, header, 0, 0)):
        if libc.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), f"prctl is refused on {platform.machine()}")


if __name__ == "__main__":
    refuse_pidfd_open()
    os.execv(sys.argv[1], sys.argv[1:])
