"""The signals that stop the daemon."""

import asyncio
import signal
from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)


class StopSignal:
    """SIGTERM or SIGINT: the first one requests a shutdown, a second one a quick shutdown."""

    def __init__(self, force: Callable[[], None]) -> None:
        self._asked = asyncio.Event()
        self._force = force

    def open(self) -> None:
        """Handle the signals from now on."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._received, number)

    def _received(self, number: signal.Signals) -> None:
        log.info("signal received", signal=number.name)
        if self._asked.is_set():
            self._force()
        self._asked.set()

    async def wait(self) -> None:
        """Wait for the first signal."""
        await self._asked.wait()
