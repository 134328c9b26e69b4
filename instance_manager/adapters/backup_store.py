"""Looks at backups with the program of an engine; implements `app.engine.backups.BackupStore`."""

import asyncio
import json
import os
from collections.abc import Callable, Mapping

from instance_manager.core.backup_credentials import VARIABLES
from instance_manager.core.backups import BackupVolume
from instance_manager.core.engine import parse_size
from instance_manager.core.errors import NotFoundError, UpstreamError
from instance_manager.platform.commands import CommandError, run_checked

TIMEOUT = 180.0
"""Seconds that the program gets; it may have to mount the backup target."""

MOST_AT_ONCE = 16
"""Largest number of programs that run at once: each takes memory and may hang."""
WAITING_SECONDS = 60.0
"""How long one more waits."""


class BackupInspection:
    """Runs `BINARY backup inspect URL`; credentials are in the environment of that program alone."""

    def __init__(
        self,
        binary_of: Callable[[str], str],
        timeout: float = TIMEOUT,
        most: int = MOST_AT_ONCE,
        waiting: float = WAITING_SECONDS,
    ) -> None:
        """Take a function that returns the program of an engine by its name, or raises `NotFoundError`."""
        self._binary_of = binary_of
        self._timeout = timeout
        self._most = most
        self._waiting = waiting
        self._slots = asyncio.Semaphore(most)

    async def volume(self, engine: str, url: str, variables: Mapping[str, str]) -> BackupVolume:
        """Return the volume that a backup is of."""
        if not url or url.startswith("-"):
            raise UpstreamError("UNKNOWN", f"cannot look at the backup {url!r}: it is no URL")
        try:
            async with asyncio.timeout(self._waiting):
                await self._slots.acquire()
        except TimeoutError as error:
            text = (
                f"cannot look at the backup: {self._most} others are being looked at, which is the most at "
                f"once, and none of them ended within {self._waiting:g} s"
            )
            raise UpstreamError("UNKNOWN", text) from error
        try:
            return await self._look(engine, url, variables)
        finally:
            self._slots.release()

    async def _look(self, engine: str, url: str, variables: Mapping[str, str]) -> BackupVolume:
        environment = {key: value for key, value in os.environ.items() if key not in VARIABLES}
        try:
            command = (self._binary_of(engine), "backup", "inspect", url)
            printed = (await run_checked(command, self._timeout, environment | dict(variables))).stdout
        except NotFoundError as error:
            raise UpstreamError("UNKNOWN", str(error)) from error
        except TimeoutError as error:
            text = f"cannot look at the backup: no answer within {self._timeout:g} s"
            raise UpstreamError("UNKNOWN", text) from error
        except CommandError as error:
            # The last line is the error, what is before it the log.
            raise UpstreamError("UNKNOWN", str(error).rpartition("\n")[2]) from error
        try:
            told = json.loads(printed)
            return BackupVolume(str(told.get("VolumeName", "")), parse_size(str(told["VolumeSize"])))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            text = f"cannot read what {command[0]} tells of the backup"
            raise UpstreamError("UNKNOWN", text) from error
