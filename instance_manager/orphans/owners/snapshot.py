"""Reading a file, or all files of a directory, as they were at one moment."""

import errno
import fcntl
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from instance_manager.platform.files import Stamp, open_regular, stamp_of

MAX_SIZE = 128 << 20
"""Largest size of all files together in bytes: about 20,000 custom resources."""
SUFFIXES = frozenset({".json", ".yaml", ".yml"})
"""Suffixes of the files in a directory that are read."""

_ATTEMPTS = 3
"""How often to read files that keep changing."""

Content = Mapping[Path, bytes]
"""The bytes of each file, by path."""


class UnreadableFilesError(Exception):
    """The files could not be read as they were at one moment; the message says why."""


def read(path: Path) -> Content:
    """Return the content of a file, or of the files in a directory with one of the `SUFFIXES`.

    Files that change while they are read are read again.

    Raises:
        UnreadableFilesError: if one cannot be read, is being written or keeps changing, or if there is none.
    """
    for _ in range(_ATTEMPTS):
        try:
            before = _stamps(path)
            content = _read_all(path, before)
            if content is not None and _stamps(path) == before:
                return content
        except FileNotFoundError as error:
            raise UnreadableFilesError(f"cannot find {error.filename}") from error
        except OSError as error:
            raise UnreadableFilesError(
                f"cannot read {error.filename or path}: {error.strerror or error}"
            ) from error
    raise UnreadableFilesError(f"cannot read {path} as a whole: it changes again and again")


def watch_paths(path: Path) -> dict[Path, set[str] | None]:
    """Return what to watch for changes of what `read` returns: names by directory, None for all its names.

    A file, or a directory on its path, may be a link: Kubernetes updates the files of a ConfigMap by changing
    such a link.
    """
    found: dict[Path, set[str] | None] = {}
    for file in {path, *_files(path)}:
        for place in _on_the_way(Path(os.path.abspath(file)), set()):  # noqa: PTH100 - without following links
            names = found.setdefault(place.parent, set())
            if names is not None:
                names.add(place.name)
    if path.is_dir():
        found[path] = None
    return {directory: names for directory, names in found.items() if directory.is_dir()}


def _on_the_way(path: Path, passed: set[Path]) -> set[Path]:
    """Return the path of a file, every link on it, and where these lead."""
    found = {path}
    for part in (path, *path.parents):
        if part.is_symlink() and part not in passed:
            passed.add(part)
            target = part.parent / part.readlink() / path.relative_to(part)
            found |= {part} | _on_the_way(Path(os.path.abspath(target)), passed)  # noqa: PTH100
    return found


def _files(path: Path) -> list[Path]:
    """Return the files to read, without hidden ones, such as the directories behind a ConfigMap."""
    if not path.is_dir():
        return [path]
    return sorted(
        file for file in path.iterdir() if file.suffix in SUFFIXES and not file.name.startswith(".")
    )


def _stamps(path: Path) -> dict[Path, Stamp]:
    """Return a stamp of each file that changes whenever the file does."""
    files = _files(path)
    if not files:
        raise UnreadableFilesError(
            f"cannot find owners in the directory {path}: it holds no {', '.join(sorted(SUFFIXES))} file"
        )
    return {file: stamp_of(file.stat()) for file in files}


def _read_all(path: Path, stamps: Mapping[Path, Stamp]) -> Content | None:
    """Return the content of every file, None if one has changed since its stamp was taken."""
    if sum(stamp[2] for stamp in stamps.values()) > MAX_SIZE:
        raise UnreadableFilesError(f"cannot read {path}: it is larger than {MAX_SIZE >> 20} MiB")
    content = {}
    for file, stamp in stamps.items():
        text = _read_file(file, stamp)
        if text is None:
            return None
        content[file] = text
    return content


def _read_file(file: Path, stamp: Stamp) -> bytes | None:
    with open_regular(file) as opened:
        try:
            _hold_writers_off(opened.fileno())
        except BlockingIOError as error:
            raise UnreadableFilesError(f"cannot read {file} as a whole: it is being written") from error
        text = opened.read(MAX_SIZE + 1)
        return text if stamp_of(os.fstat(opened.fileno())) == stamp and len(text) == stamp[2] else None


def _hold_writers_off(fd: int) -> None:
    """Take a lease on a file until it is closed; anyone who opens it for writing waits until then.

    The kernel grants it only if nobody has the file open for writing, the only sure sign that a file is not
    just being written. If there are no leases, or the file belongs to another user, this certainty is
    missing; changes during the read are still detected by the stamps.

    Raises:
        BlockingIOError: if somebody has the file open for writing.
    """
    with suppress(OSError):
        # By default, the signal for a waiting writer would end the process; SIGURG is ignored.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        if error.errno == errno.EAGAIN:
            raise
