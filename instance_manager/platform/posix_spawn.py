"""posix_spawn(3) into a cgroup, which Python's `os.posix_spawn` cannot do.

The process is in the cgroup from its first instruction. Nothing has to enter it by writing to
`cgroup.procs`, for which the kernel waits for an RCU grace period.
"""

import ctypes
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

_SETSIGDEF, _SETSIGMASK, _SETSID, _SETCGROUP = 0x04, 0x08, 0x80, 0x100  # glibc's spawn.h
_Opaque = ctypes.c_uint64 * 128
"""Room for each of the C library's types: the largest has 336 bytes."""

_libc: Final = ctypes.CDLL(None)
_set_cgroup: Final[Any] = getattr(_libc, "posix_spawnattr_setcgroup_np", None)
"""Of glibc 2.39 and later; musl has none."""


def can_spawn_into_cgroup() -> bool:
    """Return whether the C library can do it; whether the kernel can, is seen when it is tried."""
    return _set_cgroup is not None


def spawn_into_cgroup(
    cgroup: int,
    program: str,
    words: Sequence[str],
    environment: Mapping[str, str],
    copies: Sequence[tuple[int, int]],
) -> int:
    """Start a program in a cgroup and in a session of its own, with all signals at their defaults.

    Args:
        cgroup: descriptor of the directory of a cgroup (version 2).
        program: a path, or a name that is searched as execvp(3) does.
        words: what it is called with, its own name first.
        environment: all of it.
        copies: pairs of a descriptor and the number that it gets in the program, which inherits the others
            that are inheritable.

    Returns:
        The PID.

    Raises:
        OSError: why the kernel could not start a process there, or could not execute the program.
    """
    attributes, actions, signals = _Opaque(), _Opaque(), _Opaque()
    pid = ctypes.c_int()
    _check(_libc.posix_spawnattr_init(attributes))
    _check(_libc.posix_spawn_file_actions_init(actions))
    try:
        _check(_libc.posix_spawnattr_setsigmask(attributes, signals))
        _libc.sigfillset(signals)
        _check(_libc.posix_spawnattr_setsigdefault(attributes, signals))
        _check(_set_cgroup(attributes, cgroup))
        flags = ctypes.c_short(_SETSIGDEF | _SETSIGMASK | _SETSID | _SETCGROUP)
        _check(_libc.posix_spawnattr_setflags(attributes, flags))
        for source, target in copies:
            _check(_libc.posix_spawn_file_actions_adddup2(actions, source, target))
        argv = _strings(words)
        envp = _strings([f"{name}={value}" for name, value in environment.items()])
        name = os.fsencode(program)
        _check(_libc.posix_spawnp(ctypes.byref(pid), name, actions, attributes, argv, envp))
    finally:
        _libc.posix_spawn_file_actions_destroy(actions)
        _libc.posix_spawnattr_destroy(attributes)
    return pid.value


def _strings(words: Sequence[str]) -> "ctypes.Array[ctypes.c_char_p]":
    """Return a C array of strings that ends with a null pointer."""
    encoded = os.fsencode("\0".join(words)).split(b"\0") if words else []
    if len(encoded) != len(words):
        raise ValueError("embedded null byte")
    return (ctypes.c_char_p * (len(encoded) + 1))(*encoded)


def _check(number: int) -> None:
    """Check what a function of the C library has returned."""
    if number != 0:
        raise OSError(number, os.strerror(number))
