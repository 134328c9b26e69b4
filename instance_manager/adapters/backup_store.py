"""Looks at backups with the program of an engine; implements `app.engine.backups.BackupStore`."""

import asyncio
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from instance_manager.core.backup_credentials import CERTIFICATES, VARIABLES
from instance_manager.core.backups import BackupVolume
from instance_manager.core.engine import parse_size
from instance_manager.core.errors import NotFoundError, UpstreamError
from instance_manager.platform.commands import INHERITED, CommandError, run_checked

TIMEOUT = 180.0
"""Seconds that the program gets; it may have to mount the backup target."""
_LONGEST_VARIABLE = 128 << 10
"""Bytes of a variable with its name that Linux takes."""
_TRUSTED = "SSL_CERT_FILE"
"""Go programs trust what is in this file, beside the system's directory."""

MOST_AT_ONCE = 16
"""Largest number of programs that run at once: each takes memory and may hang."""
WAITING_SECONDS = 60.0
"""How long one more waits."""


class BackupInspection:
    """Runs `BINARY backup inspect URL`; credentials are in the environment of that program alone.

    Certificates that are too long for it are in a file that this program alone has.
    """

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
        long = [key for key in CERTIFICATES if _is_long(key, variables.get(key, ""))]
        told = environment | {key: value for key, value in variables.items() if key not in long}
        try:
            command = (self._binary_of(engine), "backup", "inspect", url)
            with _file("\n".join(variables[key] for key in long)) as file:
                if file is not None:
                    told[_TRUSTED] = f"/proc/self/fd/{INHERITED}"
                printed = (await run_checked(command, self._timeout, told, file)).stdout
        except NotFoundError as error:
            raise UpstreamError("UNKNOWN", str(error)) from error
        except TimeoutError as error:
            text = f"cannot look at the backup: no answer within {self._timeout:g} s"
            raise UpstreamError("UNKNOWN", text) from error
        except CommandError as error:
            # The last line is the error, what is before it the log.
            raise UpstreamError("UNKNOWN", str(error).rpartition("\n")[2]) from error
        try:
            volume = json.loads(printed)
            return BackupVolume(str(volume.get("VolumeName", "")), parse_size(str(volume["VolumeSize"])))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            text = f"cannot read what {command[0]} tells of the backup"
            raise UpstreamError("UNKNOWN", text) from error


def _is_long(key: str, value: str) -> bool:
    return len(f"{key}={value}".encode()) >= _LONGEST_VARIABLE


@contextmanager
def _file(text: str) -> Iterator[int | None]:
    """Return a descriptor of a file in memory with a text, which ends with the block; None if it is empty."""
    if not text:
        yield None
        return
    with os.fdopen(os.memfd_create("certificates"), "wb") as file:
        file.write(text.encode())
        file.flush()
        yield file.fileno()
