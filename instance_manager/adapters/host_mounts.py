"""What the proxy does to mounts of the node: volumes that became read-only, and backup targets."""

import os
from collections import Counter
from pathlib import Path

from instance_manager.core.conditions import volume_key
from instance_manager.core.errors import UpstreamError
from instance_manager.core.mountinfo import mount_points
from instance_manager.platform.commands import CommandError, run_checked

HOST_INIT = Path("/host/proc/1")
"""The node's first process, as a pod sees it; without it, the daemon is in the node's own namespaces."""
OWN = Path("/proc/self")
BACKUP_MOUNTS = Path("/var/lib/longhorn-backupstore-mounts")
TIMEOUT = 30.0
"""Seconds that a program gets; what hangs in the kernel is left behind."""


class HostMounts:
    """Changes mounts by programs: the calls may hang in the kernel."""

    def __init__(
        self,
        host_init: Path = HOST_INIT,
        own: Path = OWN,
        backup_mounts: Path = BACKUP_MOUNTS,
        timeout: float = TIMEOUT,
    ) -> None:
        self._host_init = host_init
        self._own = own
        self._backup_mounts = backup_mounts
        self._timeout = timeout

    async def remount_writable(self, volume: str) -> None:
        """Make the file system of a volume writable, wherever it is mounted globally; nothing if it is not.

        Raises:
            UpstreamError: INTERNAL, if that fails.
        """
        end = f"/{volume_key(volume)}/globalmount"
        in_pod = self._host_init.is_dir()
        enter = ("nsenter", f"--mount={self._host_init}/ns/mnt", f"--net={self._host_init}/ns/net")
        for point in dict.fromkeys(_points(self._host_init if in_pod else self._own)):
            if point.endswith(end):
                command = (*(enter if in_pod else ()), "mount", "-o", "remount,rw", point)
                await self._remount(*command)

    async def _remount(self, *command: str) -> None:
        failure = "remount failed with error"
        try:
            await self._run(failure, *command)
        except TimeoutError as error:
            raise UpstreamError("INTERNAL", f"{failure}: no answer within {self._timeout:g} s") from error

    async def unmount_backup_targets(self) -> None:
        """Unmount every backup target and remove the directory; nothing if there is none.

        Raises:
            UpstreamError: INTERNAL, if one of them cannot be unmounted; the others are, all the same.
        """
        failed: list[str] = []
        # What is mounted below another one comes first.
        times = Counter(_points(self._own))
        for point in sorted(times, key=len, reverse=True):
            if Path(point).is_relative_to(self._backup_mounts):
                try:
                    for _ in range(times[point]):
                        await self._unmount(point)
                    self._remove(point)
                except UpstreamError as error:
                    failed.append(str(error))
        if failed:
            raise UpstreamError("INTERNAL", "; ".join(failed))

    async def _unmount(self, point: str) -> None:
        failure = f"failed to unmount {point}"
        try:
            await self._run(failure, "umount", point)
        except TimeoutError:
            try:
                await self._run(failure, "umount", "--force", point)
            except TimeoutError as error:
                raise UpstreamError("INTERNAL", f"{failure}: it hangs, also by force") from error

    def _remove(self, point: str) -> None:
        if point != str(self._backup_mounts):
            try:
                os.rmdir(point)  # noqa: PTH106 - it is on the node's own file system and does not hang
            except OSError as error:
                raise UpstreamError("INTERNAL", f"failed to remove {point}: {error.strerror}") from error

    async def _run(self, failure: str, *command: str) -> None:
        try:
            await run_checked(command, self._timeout, os.environ)
        except CommandError as error:
            raise UpstreamError("INTERNAL", f"{failure}: {error}") from error


def _points(process: Path) -> list[str]:
    with (process / "mountinfo").open(encoding="utf-8", errors="surrogateescape") as lines:
        return mount_points(lines)
