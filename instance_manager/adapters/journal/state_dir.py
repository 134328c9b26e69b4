"""The state directory: used by one daemon at a time, and the mark of the processes it owns."""

import os
from dataclasses import dataclass
from pathlib import Path

import structlog

from instance_manager.platform import contract
from instance_manager.platform.linux import is_locked, lock_directory, lock_file, lock_holder

log = structlog.get_logger(__name__)

PATIENCE = 2.0
"""Seconds to wait for the lock of a state directory."""


class StateDirError(Exception):
    """The state directory cannot be used; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class StateDirInspection:
    """What can be seen of a state directory from outside."""

    exists: bool
    readable: bool
    writable: bool
    locked: bool
    """Whether a daemon uses it."""


class StateDir:
    """A directory that belongs to one daemon while it is open."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock = -1
        self._directory = -1
        """Locked as well: somebody may remove the file."""

    @property
    def journal(self) -> Path:
        """Where the journal is."""
        return self.path / contract.JOURNAL

    @property
    def owner(self) -> str:
        """The mark of the processes that daemons with this directory have started.

        The path alone is not enough: containers on one node may see each other's processes, and each has a
        /run of its own, hence the mount namespace in front. It is computed, not stored, so it cannot be lost.
        """
        return f"{Path('/proc/self/ns/mnt').readlink()}:{self.path}"

    def open(self, patience: float = PATIENCE) -> None:
        """Create the directory and lock it, waiting `patience` seconds at most for the lock.

        Some hold it for a moment: the last daemon's child in the middle of its execve, or `doctor`.

        Raises:
            StateDirError: if another daemon has it, or it cannot be created.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = lock_file(self.path / "lock", patience=patience)
            self._lock_directory(patience)
        except BlockingIOError as error:
            self.close()
            raise StateDirError(
                f"cannot use the state directory {self.path}: another daemon uses it; "
                "end that one first or choose another --state-dir"
            ) from error
        except OSError as error:
            raise StateDirError(
                f"cannot use the state directory {self.path}: {error.strerror}; "
                "make it writable or choose another --state-dir"
            ) from error

    def _lock_directory(self, patience: float) -> None:
        try:
            self._directory = lock_directory(self.path, patience=patience)
        except BlockingIOError:
            raise
        except OSError as error:  # as NFS does; the lock of the file is enough as long as that exists
            log.info("state directory: only its lock file can be locked", reason=error.strerror)

    def close(self) -> None:
        """Release the directory."""
        for fd in (self._directory, self._lock):
            if fd >= 0:
                os.close(fd)
        self._lock = self._directory = -1

    def holder(self) -> int | None:
        """Return the PID of the daemon that uses the directory; None if it cannot be told."""
        return lock_holder(self.path / "lock") or lock_holder(self.path)

    def inspect(self) -> StateDirInspection:
        """Look at the directory without changing anything."""
        return StateDirInspection(
            exists=self.path.is_dir(),
            readable=os.access(self.path, os.R_OK | os.X_OK),
            writable=os.access(self.path, os.W_OK),
            locked=_is_locked(self.path) or _is_locked(self.path / "lock"),
        )


def _is_locked(path: Path) -> bool:
    try:
        return is_locked(path)
    except OSError:  # what cannot be read is told beside it
        return False
