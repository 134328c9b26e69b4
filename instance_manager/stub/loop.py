"""A small event loop: files and timers on one thread, until somebody sets the exit status.

asyncio would cost more than the rest of the stub together, in time to start and in memory.
"""

import sched
import selectors
import time
from collections.abc import Callable

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE


class Loop:
    """Calls back when a file is ready or a time has come."""

    def __init__(self) -> None:
        # poll(2), since epoll refuses the regular files and /dev/null that stdout may be
        self._selector = selectors.PollSelector()
        self._timers = sched.scheduler(time.monotonic)
        self._status: int | None = None

    def watch(self, fd: int, events: int, ready: Callable[[], None]) -> None:
        """Call `ready` whenever `fd` can be read or written (READ, WRITE); 0 events end the watch."""
        known = self._selector.get_map().get(fd)
        if known and (known.events, known.data) == (events, ready):
            return
        if known:
            self._selector.unregister(fd)
        if events:
            self._selector.register(fd, events, ready)

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Call `action` once, that many seconds from now."""
        self._timers.enter(seconds, 0, self._unless_ended, (action,))

    def end(self, status: int) -> None:
        """Make `run` return this exit status, with no further callback; the first one counts."""
        if self._status is None:
            self._status = status

    def run(self) -> int:
        """Wait for events until `end` is called; returns the exit status."""
        while True:
            timeout = self._timers.run(blocking=False)
            if self._status is not None:
                return self._status
            for key, _ in self._selector.select(timeout):
                self._unless_ended(key.data)

    def _unless_ended(self, action: Callable[[], None]) -> None:
        if self._status is None:
            action()
