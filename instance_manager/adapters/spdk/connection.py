"""The parts of the v2 data engine, put together."""

from collections.abc import Callable

from instance_manager.adapters.spdk.channel import SpdkChannel, Timeouts
from instance_manager.adapters.spdk.service import SpdkService
from instance_manager.adapters.spdk.watch import SpdkWatch
from instance_manager.app.spdk import SpdkInstances
from instance_manager.platform.background import Background
from instance_manager.platform.channels import Certificates


class SpdkConnection:
    """A connection to the SPDK service, the instances in it, and the watch over them."""

    def __init__(
        self,
        target: str,
        ping: Callable[[], None],
        background: Background,
        timeouts: Timeouts | None = None,
        certificates: Certificates | None = None,
    ) -> None:
        """Connect to nobody yet; without certificates, plain text is spoken."""
        self._channel = SpdkChannel(target, certificates)
        self._watch = SpdkWatch(self._channel, ping, background)
        self.service = SpdkService(self._channel, timeouts)
        self.instances = SpdkInstances(self.service)

    def open(self, report: Callable[[bool], None] = lambda _: None) -> None:
        """Call `ping` from now on whenever something may have changed.

        `report` is called with whether the service is there, now and when that changes.
        """
        self._watch.open(report)

    async def close(self) -> None:
        """Cancel everything in progress and close the connection."""
        await self._watch.close()
        await self.instances.close()
        await self._channel.close()
