"""The signals that stop the daemon, and those that must not."""

import asyncio
import signal
from collections.abc import Callable

import structlog

from instance_manager.platform.signals import STOPPING, release

log = structlog.get_logger(__name__)

_IGNORED = (signal.SIGUSR1, signal.SIGUSR2)
"""Habits of other daemons; by default they would kill this one."""


class Signals:
    """Handles every signal that people send to daemons.

    SIGTERM, SIGINT or SIGQUIT: the first one requests a shutdown, a second one a quick shutdown. SIGHUP
    reloads what can be reloaded, unless it is ignored, as under nohup.
    """

    def __init__(self, force: Callable[[], None], reload: Callable[[], None]) -> None:
        self._requested = asyncio.Event()
        self._force = force
        self._reload = reload

    def open(self) -> None:
        """Handle the signals from now on."""
        reloading = () if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else (signal.SIGHUP,)
        for number in (*STOPPING, *_IGNORED, *reloading):
            asyncio.get_running_loop().add_signal_handler(number, self._received, number)
        release()

    def _received(self, number: signal.Signals) -> None:
        log.info("signal received", signal=number.name, ignored=number in _IGNORED)
        if number is signal.SIGHUP:
            self._reload()
        elif number in STOPPING:
            if self._requested.is_set():
                self._force()
            self._requested.set()

    async def wait(self) -> None:
        """Wait for the first signal that stops the daemon."""
        await self._requested.wait()
