"""Thaws the file systems of volumes at the start.

A snapshot freezes the file system of its volume. An engine that is killed meanwhile, as with its container,
leaves it frozen for ever: whoever writes to it hangs.
"""

import asyncio
import os
import signal
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import structlog

from instance_manager.core.mountinfo import unescaped
from instance_manager.core.process import ExitStatus
from instance_manager.platform import contract
from instance_manager.platform.background import Background

log = structlog.get_logger(__name__)

MOUNTINFO = Path("/proc/self/mountinfo")
WORK = "thaw"
"""Name of this background work."""
TIMEOUT = 5.0
"""Seconds that one file system gets; what hangs in the kernel is left behind."""
COMMAND = ("fsfreeze", "--unfreeze")

_DEVICES = "/dev/longhorn/"
_MOUNT_POINT = 4  # field, proc_pid_mountinfo(5)
_NOT_FROZEN = "Invalid argument"
_LONGEST_OUTPUT = 4096


def volume_mounts(lines: Iterable[str]) -> list[str]:
    """Return where volumes are mounted, in the lines of a mountinfo."""
    found: dict[str, None] = {}
    for line in lines:
        mount, _, filesystem = line.partition(" - ")
        fields, source = mount.split(" "), filesystem.split(" ")[1:2]
        if source and source[0].startswith(_DEVICES) and len(fields) > _MOUNT_POINT:
            found[unescaped(fields[_MOUNT_POINT])] = None
    return list(found)


class Thaw:
    """Thaws once, in the background, by a program: the call may hang in the kernel."""

    def __init__(
        self,
        background: Background,
        path: Path = MOUNTINFO,
        command: Sequence[str] = COMMAND,
        timeout: float = TIMEOUT,
    ) -> None:
        self._background = background
        self._path = path
        self._command = command
        self._timeout = timeout

    def start(self) -> "asyncio.Task[None]":
        """Begin; whatever goes wrong is logged."""
        return self._background.start(WORK, self._thaw_all())

    async def _thaw_all(self) -> None:
        with self._path.open(encoding="utf-8", errors="surrogateescape") as lines:
            points = volume_mounts(lines)
        for point in points:
            try:
                said, status = await self._run(point)
            except TimeoutError:
                log.warning("cannot thaw a file system: no answer", mount=point, seconds=self._timeout)
            except OSError as error:
                reason = error.strerror or str(error)
                log.warning("cannot thaw file systems", program=self._command[0], reason=reason)
                return
            else:
                _tell(point, said, status)

    async def _run(self, point: str) -> tuple[str, ExitStatus]:
        """Return what the program prints, and how it has ended.

        Raises:
            OSError: if it cannot be started.
            TimeoutError: if it does not end in time.
        """
        output, writer = os.pipe()
        os.set_blocking(output, False)
        try:
            try:
                pidfd = self._spawn(point, writer)
            finally:
                os.close(writer)
            try:
                status = await self._ended(pidfd)
                said = b""
                with suppress(BlockingIOError):  # it has left a child behind
                    said = os.read(output, _LONGEST_OUTPUT)
                return said.decode(errors="replace").strip(), status
            finally:
                os.close(pidfd)
        finally:
            os.close(output)

    def _spawn(self, point: str, output: int) -> int:
        pid = os.posix_spawnp(
            self._command[0],
            [*self._command, point],
            os.environ | {"LC_ALL": "C", contract.UUID_VARIABLE: contract.NO_INSTANCE},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, output, 1),
                (os.POSIX_SPAWN_DUP2, output, 2),
            ],
            setpgroup=0,
            setsigmask=(),
            setsigdef=signal.valid_signals(),
        )
        return os.pidfd_open(pid)

    async def _ended(self, pidfd: int) -> ExitStatus:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(pidfd, ended.set)
        try:
            async with asyncio.timeout(self._timeout):
                await ended.wait()
        except BaseException:
            # Nobody waits for its end: in the kernel it may never come.
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            raise
        finally:
            loop.remove_reader(pidfd)
        with suppress(ChildProcessError):  # who reaps strangers may have been first
            result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)  # noqa: ASYNC222 - no wait
            if result is not None and result.si_code == os.CLD_EXITED:
                return ExitStatus(result.si_status)
            if result is not None:
                return ExitStatus(signal=signal.strsignal(result.si_status) or str(result.si_status))
        return ExitStatus(known=False)


def _tell(point: str, said: str, status: ExitStatus) -> None:
    # Without a status, what thaws says nothing.
    if status.clean or not (status.known or said):
        log.warning("thawed the file system of a volume: its engine was killed in a snapshot", mount=point)
    elif said.endswith(_NOT_FROZEN):
        log.debug("file system is not frozen", mount=point)
    else:
        log.warning("cannot thaw a file system", mount=point, reason=said or str(status))
