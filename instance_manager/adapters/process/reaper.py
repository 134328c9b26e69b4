"""The children of this process: instances, and what these have left to it; all are reaped when they end."""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress

import structlog

from instance_manager.adapters.process.slices import Slices
from instance_manager.platform import proc
from instance_manager.platform.linux import become_subreaper

log = structlog.get_logger(__name__)

_RETRY_DELAY = 0.1


class Reaper:
    """Reaps every child that ends, but for instances, whose exits are events on their pidfds.

    `open` makes the whole OS process a subreaper, so nothing else in it may start processes and wait for them
    by itself while it is open.
    """

    def __init__(self) -> None:
        self.instances: set[int] = set()
        """PIDs of children that are reaped by others; also of those that have ended."""
        self.on_reaped: Callable[[], None] = lambda: None
        """Called when a descendant that was inherited is gone."""
        self.alone = False
        """Whether all that this process inherits was left by instances; known once it is open."""
        self._task: asyncio.Task[None] | None = None
        self._again = False

    def open(self) -> None:
        """Inherit what instances leave, and reap it."""
        # The first process of a namespace inherits what others bring there, and what was there before this
        # program (by exec, in a script) may leave something, too.
        self.alone = os.getpid() != 1 and not proc.children_of(os.getpid())
        become_subreaper()
        self._handler = signal.getsignal(signal.SIGCHLD) or signal.SIG_DFL
        loop = asyncio.get_running_loop()
        try:
            loop.add_signal_handler(signal.SIGCHLD, self._reap_soon)
            # When hundreds end at once, the buffer of the wake-ups gets full; one of them is enough.
            signal.set_wakeup_fd(signal.set_wakeup_fd(-1), warn_on_full_buffer=False)
        except RuntimeError:
            # uvloop does not allow its own handler for SIGCHLD, but Python's handlers wake it up as well.
            signal.signal(signal.SIGCHLD, lambda *_: loop.call_soon_threadsafe(self._reap_soon))

    def close(self) -> None:
        """Reap nothing any more."""
        asyncio.get_running_loop().remove_signal_handler(signal.SIGCHLD)
        signal.signal(signal.SIGCHLD, self._handler)
        if self._task is not None:
            self._task.cancel()

    def inherited(self) -> list[int]:
        """Return the PIDs of the descendants that this process has inherited.

        Raises:
            proc.UnreadableError: if children cannot be listed.
        """
        return [pid for pid in proc.children_of(os.getpid()) if pid not in self.instances]

    async def reap(self) -> None:
        """Reap every inherited descendant that has ended.

        Raises:
            proc.UnreadableError: if children cannot be listed.
        """
        slices = Slices()
        for pid in self.inherited():
            # It may have been reaped meanwhile, and its PID be that of a new instance.
            if pid not in self.instances:
                with suppress(ChildProcessError):
                    ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)  # noqa: ASYNC222 - no wait
                    if ended is not None:
                        log.debug("descendant reaped", pid=pid, status=ended.si_status)
                        self.on_reaped()
            await slices.pause()

    def _reap_soon(self) -> None:
        self._again = True
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._reap_all())

    async def _reap_all(self) -> None:
        while self._again:
            self._again = False
            try:
                await self.reap()
            except proc.UnreadableError as error:
                log.debug("descendants not reaped, trying again", reason=str(error))
                self._again = True
                await asyncio.sleep(_RETRY_DELAY)
