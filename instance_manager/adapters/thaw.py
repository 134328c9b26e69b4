"""Thaws the file systems of volumes at the start.

A snapshot freezes the file system of its volume. An engine that is killed meanwhile, as with its container,
leaves it frozen for ever: whoever writes to it hangs.
"""

import asyncio
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import structlog

from instance_manager.core.mountinfo import mount_points
from instance_manager.platform.background import Background
from instance_manager.platform.commands import CommandError, run_checked

log = structlog.get_logger(__name__)

MOUNTINFO = Path("/proc/self/mountinfo")
WORK = "thaw"
"""Name of this background work."""
TIMEOUT = 5.0
"""Seconds that one file system gets; what hangs in the kernel is left behind."""
COMMAND = ("fsfreeze", "--unfreeze")

_DEVICES = "/dev/longhorn/"
_NOT_FROZEN = "Invalid argument"


def volume_mounts(lines: Iterable[str]) -> list[str]:
    """Return where volumes are mounted, in the lines of a mountinfo."""
    return list(dict.fromkeys(mount_points(line for line in lines if _source(line).startswith(_DEVICES))))


def _source(line: str) -> str:
    """Return what is mounted; empty if the line is cut short."""
    return (line.partition(" - ")[2].split(" ")[1:2] or [""])[0]


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
        program = self._command[0]
        if points and shutil.which(program) is None:
            log.warning("cannot thaw file systems: there is no such program", program=program)
            return
        for point in points:
            try:
                await run_checked((*self._command, point), self._timeout, os.environ)
            except TimeoutError:
                log.warning("cannot thaw a file system: no answer", mount=point, seconds=self._timeout)
            except CommandError as error:
                if str(error).endswith(_NOT_FROZEN):
                    log.debug("file system is not frozen", mount=point)
                else:
                    log.warning("cannot thaw a file system", mount=point, reason=str(error))
            else:
                log.warning(
                    "thawed the file system of a volume: its engine was killed in a snapshot", mount=point
                )
