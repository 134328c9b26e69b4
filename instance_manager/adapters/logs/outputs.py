"""What processes are given as their output, and finding that of one that an earlier daemon has started."""

import asyncio
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import structlog

from instance_manager.adapters.logs.opening import NO_DESCRIPTOR, open_for_reader, open_for_writer
from instance_manager.platform.backoff import exponential_backoff
from instance_manager.platform.threads import Threads

log = structlog.get_logger(__name__)

_STDOUT, _STDERR = 1, 2
_DELETED = " (deleted)"
"""What the kernel appends to the path of a removed file."""
_RETRY, _RETRY_LONGEST = 1.0, 30.0
"""Seconds until the next attempt to find the output of a process; the delay doubles."""


class Outputs:
    """Opens logs for processes, or /dev/null."""

    def __init__(
        self, directory: Path, threads: Threads, on_failure: Callable[[str, str, OSError], None]
    ) -> None:
        """Open nothing yet; `on_failure` gets the kind of a failure, a path, and the error."""
        self._directory = directory
        self._threads = threads
        self._on_failure = on_failure
        self._devnull = -1
        self.lost: set[str] = set()
        """Names of the processes that write to /dev/null."""

    def open(self) -> None:
        """Open /dev/null, for when there is nothing else."""
        self._devnull = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Open nothing any more."""
        os.close(self._devnull)

    def open_for(self, name: str) -> tuple[int, bool]:
        """Return a descriptor for a new process, and whether it is of its log and not of /dev/null.

        Raises:
            OSError: if there is no descriptor left.
        """
        path = self._directory / f"{name}.log"
        try:
            return self._open_or_create(path), True
        except OSError as error:
            if error.errno in NO_DESCRIPTOR:
                raise
            self._on_failure("open", str(path), error)
            fd = os.dup(self._devnull)
            self._lose(name, error.strerror or str(error))
            return fd, False

    def _open_or_create(self, path: Path) -> int:
        try:
            return open_for_writer(path)
        except FileNotFoundError:  # somebody has removed the directory
            self._directory.mkdir(parents=True, exist_ok=True)
            return open_for_writer(path)

    async def find(self, name: str, pid: int | None, wanted: Callable[[], bool]) -> int | None:
        """Return a descriptor of the log of a process of an earlier daemon, None if there is none.

        Args:
            name: name of the process.
            pid: its PID; None if it has ended.
            wanted: returns whether to go on with attempts.
        """
        path = self._directory / f"{name}.log"
        for delay in exponential_backoff(_RETRY, _RETRY_LONGEST):
            try:
                found = await self._threads.run(open_output, pid, path)
            except FileNotFoundError:
                if pid is not None:
                    self._lose(name, "its log was neither found at its path nor as its output")
                return None
            except OSError as error:
                self._on_failure("open", str(path), error)
            else:
                if found is None:
                    self._lose(name, "it could not be opened when the process was started")
                return found
            await asyncio.sleep(delay)
            if not wanted():
                return None
        return None

    def _lose(self, name: str, reason: str) -> None:
        """Note that a process writes to /dev/null: nobody but itself could change that."""
        self.lost.add(name)
        log.error("the logs of a process are lost for its lifetime", name=name, reason=reason)


def open_output(pid: int | None, path: Path) -> int | None:
    """Open the log of a process for reading; None if it was given none.

    Args:
        pid: the process; None if only descendants of it are left.
        path: where its log was made. Only a file that is there, or was, is taken for its log: the process may
            have opened something else since, which is nobody's to cut.

    Raises:
        FileNotFoundError: if there is no such file.
        OSError: if it cannot be opened.
    """
    if pid is not None:
        outputs = [Path(f"/proc/{pid}/fd/{number}") for number in (_STDOUT, _STDERR)]
        for output in outputs:
            with suppress(OSError):
                if _is_log(output, path):
                    return os.open(output, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with suppress(OSError):
            if all(output.samefile(os.devnull) for output in outputs):
                return None
    return open_for_reader(path)


def _is_log(output: Path, path: Path) -> bool:
    status = output.stat()
    if not stat.S_ISREG(status.st_mode):
        return False
    with suppress(OSError):
        if os.path.samestat(status, path.stat()):
            return True
    target = Path(str(output.readlink()).removesuffix(_DELETED))
    return target.parent == path.parent.resolve() and path.stem in target.name
