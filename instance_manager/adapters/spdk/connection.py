"""Everything that takes the v2 data engine to and from the SPDK service."""

from collections.abc import Callable

from instance_manager.adapters.spdk.channel import SpdkChannel, Timeouts
from instance_manager.adapters.spdk.service import SpdkService
from instance_manager.adapters.spdk.watch import SpdkWatch
from instance_manager.app.spdk import SpdkInstances


class SpdkConnection:
    """One connection, the instances behind it, and the watch over them."""

    def __init__(self, target: str, ping: Callable[[], None], timeouts: Timeouts | None = None) -> None:
        self._channel = SpdkChannel(target)
        self._watch = SpdkWatch(self._channel, ping)
        self.instances = SpdkInstances(SpdkService(self._channel, timeouts))

    def open(self) -> None:
        """Call `ping` from now on whenever something may have changed."""
        self._watch.open()

    async def close(self) -> None:
        """Give up what is under way and end the connection."""
        await self._watch.close()
        await self.instances.close()
        await self._channel.close()
