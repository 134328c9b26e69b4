"""The three files of a TLS directory."""

import os
from pathlib import Path

from instance_manager.core.certificates import FILES, CertificateError, CertificateSet
from instance_manager.platform.files import Stamp, open_regular, stamp_of

_LARGEST = 1 << 20

Fingerprint = tuple[Stamp | None, ...]
"""Changes whenever one of the files does."""


def read(folder: Path) -> CertificateSet:
    """Return the contents of the files.

    Raises:
        CertificateError: if one is missing or cannot be read.
    """
    return CertificateSet(*(_content(folder / name) for name in FILES))


def fingerprint(folder: Path) -> Fingerprint:
    """Return the identity, size and times of each file, None for a missing one; they change with the file."""
    return tuple(_identity(folder / name) for name in FILES)


def is_empty(folder: Path) -> bool:
    """Return whether certainly none of the files exists, as in the mount of an optional secret."""
    return not any(_may_exist(folder / name) for name in FILES)


def _may_exist(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # a directory that may not be entered, or a disk that fails
        return True
    return True


def _identity(path: Path) -> Stamp | None:
    try:
        return stamp_of(path.stat())
    except OSError:
        return None


def _content(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            content = file.read(_LARGEST + 1)
    except PermissionError as error:
        raise CertificateError(
            f"cannot read {path}: permission denied; let the user with the id {os.geteuid()} read it"
        ) from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CertificateError(f"cannot read {path}: {reason}; {_needed()}") from error
    if len(content) > _LARGEST:
        raise CertificateError(f"cannot use {path}: it is larger than {_LARGEST >> 20} MiB; {_needed()}")
    return content


def _needed() -> str:
    return f"the TLS directory has to hold {', '.join(FILES[:-1])} and {FILES[-1]}"
