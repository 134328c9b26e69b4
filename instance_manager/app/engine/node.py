"""The Protocol of what the proxy does on its own node."""

from typing import Protocol


class NodeMounts(Protocol):
    """Mounts of the node; each method raises `UpstreamError`, INTERNAL, if it fails."""

    async def remount_writable(self, volume: str) -> None:
        """Make the file system of a volume writable where it is mounted globally; nothing if it is not."""

    async def unmount_backup_targets(self) -> None:
        """Unmount every backup target and remove the directory; nothing if there is none."""
