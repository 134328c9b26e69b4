"""What is written on a cell: extended attributes of its directory."""

import errno
import os
from contextlib import suppress

_NAMESPACES = ("user", "trusted")
"""The second one needs CAP_SYS_ADMIN, and the first one Linux 5.7."""
_PIECE = 60_000
"""Bytes; the kernel takes 64 KiB at once, and 128 KiB in all."""


def set_attribute(folder: int, name: str, value: bytes) -> None:
    """Write a value on a directory that is open.

    Raises:
        OSError: if that is impossible, ENOSPC if there is no room for it.
    """
    for number in range(len(value) // _PIECE + 1):
        piece = value[number * _PIECE : (number + 1) * _PIECE]
        _set(folder, f"{name}.{number}", piece)


def get_attribute(folder: int, name: str) -> bytes | None:
    """Return what is written on a directory that is open; None if nothing is."""
    value, number = None, 0
    while (piece := _get(folder, f"{name}.{number}")) is not None:
        value = (value or b"") + piece
        if len(piece) < _PIECE:
            break
        number += 1
    return value


def _set(folder: int, name: str, value: bytes) -> None:
    user, trusted = (f"{namespace}.instance-manager.{name}" for namespace in _NAMESPACES)
    try:
        os.setxattr(folder, user, value)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        os.setxattr(folder, trusted, value)


def _get(folder: int, name: str) -> bytes | None:
    for namespace in _NAMESPACES:
        with suppress(OSError):
            return os.getxattr(folder, f"{namespace}.instance-manager.{name}")
    return None
