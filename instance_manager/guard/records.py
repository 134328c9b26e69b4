"""How adopted processes ended, in files for the next daemon: `exits/PID.STARTTIME` in the state directory.

Nothing is flushed to the disk: a record must outlive processes, not the machine.
"""

import os
import re
from contextlib import suppress

from instance_manager.guard import proc
from instance_manager.guard.log import Log
from instance_manager.guard.status import Status
from instance_manager.platform import contract
from instance_manager.platform.linux import boot_id

MOST = 4096
"""Largest number of records kept, in case that nobody reads them."""

_RECORD = re.compile(r"[0-9]+\.[0-9]+")
_BOOT = "boot_id"
_UNFINISHED = ".unfinished"


class ExitRecords:
    """The directory of the records. If it cannot be written, that is logged once and counted."""

    def __init__(self, state_dir: str, log: Log, most: int = MOST) -> None:
        self._state_dir = state_dir
        self._path = f"{state_dir}/{contract.EXITS}"
        self._log = log
        self._most = most
        self._of_this_boot = False
        self._failing = False
        self._count = 0
        self.lost = 0
        """Number of records that could not be written."""

    def open(self) -> None:
        """Create the directory, and delete records of an earlier boot, whose PIDs mean nothing now."""
        try:
            os.close(self._open_folder())
        except OSError as error:
            self._report(error)

    def write(self, pid: int, status: Status) -> None:
        """Record how a process ended. Call this before it is reaped, while /proc still has its start time."""
        try:
            self._write(contract.exit_record_name(pid, proc.start_time(pid)), f"{status}\n")
        except OSError as error:
            self.lost += 1
            self._report(error)
            return
        if self._failing:
            self._failing = False
            self._log.info("exit records are written again", folder=self._path, lost=self.lost)

    def _report(self, error: OSError) -> None:
        if not self._failing:
            self._failing = True
            self._log.warning(
                "exit records cannot be written: how adopted processes end will be unknown to the daemon",
                folder=self._path,
                error=error.strerror or str(error),
            )

    def _write(self, name: str, text: str) -> None:
        folder = self._open_folder()
        try:
            _replace(folder, name, text)
            self._count += 1
            if self._count > self._most:
                self._drop_oldest(folder)
        finally:
            os.close(folder)

    def _open_folder(self) -> int:
        """Open the directory for each record anew, since somebody may have removed or replaced it."""
        try:
            folder = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            for path in (self._state_dir, self._path):
                os.makedirs(path, mode=0o700, exist_ok=True)  # noqa: PTH103 - pathlib costs a MiB
            folder = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
            self._of_this_boot = False
        try:
            if not self._of_this_boot:
                self._clear(folder)
        except OSError:
            os.close(folder)
            raise
        self._of_this_boot = True
        return folder

    def _clear(self, folder: int) -> None:
        boot = boot_id()
        known = ""
        with suppress(FileNotFoundError):
            known = proc.read(_BOOT, folder).strip()
        records = _records(folder)
        if known == boot:
            self._count = len(records)
            return
        for name in records:
            _remove(folder, name)
        self._count = 0
        _replace(folder, _BOOT, f"{boot}\n")  # last: interrupted, all of it is done again

    def _drop_oldest(self, folder: int) -> None:
        """Drop an eighth more than necessary, so that the directory is not listed for each record.

        The daemon removes records too, so they are counted again.
        """
        records = _records(folder)
        self._count = len(records)
        surplus = self._count - self._most
        if surplus > 0:
            oldest = sorted(records, key=lambda name: _written(folder, name))
            for name in oldest[: surplus + self._most // 8]:
                _remove(folder, name)
                self._count -= 1


def _records(folder: int) -> list[str]:
    """Return the names of the records, ignoring other files."""
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries if _RECORD.fullmatch(entry.name)]


def _written(folder: int, name: str) -> int:
    with suppress(FileNotFoundError):
        return os.stat(name, dir_fd=folder).st_mtime_ns
    return 0


def _remove(folder: int, name: str) -> None:
    with suppress(FileNotFoundError):  # the daemon has removed it
        os.unlink(name, dir_fd=folder)


def _replace(folder: int, name: str, text: str) -> None:
    """Write a file atomically."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    fd = os.open(_UNFINISHED, flags, 0o600, dir_fd=folder)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
    os.rename(_UNFINISHED, name, src_dir_fd=folder, dst_dir_fd=folder)
