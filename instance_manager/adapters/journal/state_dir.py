"""The state directory: one daemon at a time, and a name for whose processes are whose."""

import errno
import fcntl
import os
import time
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

PATIENCE = 2.0
"""Seconds to wait for the lock of a state directory."""
_RETRY_DELAY = 0.02


class StateDirError(Exception):
    """The state directory cannot be used; the message says why and what to do."""


class StateDir:
    """A directory that belongs to one daemon while it is open."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock = -1

    @property
    def journal(self) -> Path:
        """Where the journal is."""
        return self.path / "journal.db"

    @property
    def exits(self) -> Path:
        """Where the guard leaves exit statuses."""
        return self.path / "exits"

    @property
    def owner(self) -> str:
        """A mark for the processes of daemons that use this directory, and of no others.

        The path alone would not do: containers of one node may see each other's processes, and each has a
        /run of its own; hence the mount namespace in front. Nothing is stored, so nothing can be lost.
        """
        return f"{Path('/proc/self/ns/mnt').readlink()}:{self.path}"

    def open(self, patience: float = PATIENCE) -> None:
        """Create the directory and lock it, waiting `patience` seconds at most for the lock.

        Some hold it for a moment: the last daemon's child in the middle of its execve, `doctor` in its look.

        Raises:
            StateDirError: if another daemon has it, or it cannot be created.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = _open_lock(self.path / "lock")
            _lock_within(self._lock, patience)
        except BlockingIOError as error:
            self.close()
            raise StateDirError(
                f"cannot use the state directory {self.path}: another daemon uses it; "
                "end that one first or choose another --state-dir"
            ) from error
        except OSError as error:
            self.close()
            raise StateDirError(
                f"cannot use the state directory {self.path}: {error.strerror}; "
                "make it writable or choose another --state-dir"
            ) from error

    def close(self) -> None:
        """Let go of the directory."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _open_lock(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        # Become read-only under a daemon that died: the next one has to control what lives all the same.
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _lock_within(fd: int, patience: float) -> None:
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_RETRY_DELAY)
        else:
            return


def boot_id() -> str:
    """Return what distinguishes this boot of the machine from every other."""
    return _BOOT_ID.read_text(encoding="ascii").strip()
