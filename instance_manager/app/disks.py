"""The Protocol of the disks of the v2 data engine, which the SPDK service has."""

from typing import Any, Protocol


class Disks(Protocol):
    """The methods of the SPDK service that are about disks."""

    async def forward(self, method: str, doing: str, request: Any, *, changes: bool) -> Any:
        """Call a method as it is.

        Args:
            method: its name.
            doing: what is attempted, for the message of an error: "create the disk 'd1'".
            request: the message that the method takes.
            changes: whether it changes something, and so may take longer.

        Returns:
            The message that the method returns.

        Raises:
            UpstreamError: with the code of the SPDK service.
        """
