"""Completing changes whose caller goes away."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from instance_manager.core.errors import ResourceExhaustedError, UnavailableError

T = TypeVar("T")

MOST = 1024
"""Largest number of changes in progress; those whose callers have gone count, too."""
MOST_BYTES = 6 << 20
"""Largest number of bytes of their requests; what is in one is in memory several times."""


class Completion:
    """Completes every change that was begun: half of one would leave replicas that differ."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._bytes = 0
        self._closed = False

    async def of(self, change: Coroutine[Any, Any, T], size: int) -> T:
        """Return what a change returns. If the caller is cancelled, the change goes on to its end.

        Args:
            change: what to do.
            size: bytes of its request.

        Raises:
            ResourceExhaustedError: if too much is in progress; it is not begun then.
            UnavailableError: at the end of the daemon; it is not begun, or was not completed.
        """
        if self._closed:
            change.close()
            raise UnavailableError("cannot begin a change of an engine: the daemon is shutting down")
        if len(self._tasks) >= MOST:
            change.close()
            raise ResourceExhaustedError(
                f"cannot begin another change of an engine: {MOST} are in progress and that is the most "
                "there may be; ask again later"
            )
        if self._bytes + size > MOST_BYTES:
            change.close()
            raise ResourceExhaustedError(
                f"cannot begin another change of an engine: the requests of those in progress have "
                f"{self._bytes} bytes, this one has {size} and {MOST_BYTES} is the most there may be; ask "
                "again later"
            )
        task = asyncio.get_running_loop().create_task(change)
        self._tasks.add(task)
        self._bytes += size
        task.add_done_callback(lambda task: self._ended(task, size))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled() and self._closed:
                raise UnavailableError(
                    "the change of an engine was not completed: the daemon is shutting down"
                ) from None
            raise

    def _ended(self, task: asyncio.Task[Any], size: int) -> None:
        self._tasks.discard(task)
        self._bytes -= size
        if not task.cancelled():
            task.exception()  # nobody may be left to hear of it

    async def close(self) -> None:
        """Cancel what is in progress, and begin nothing more."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
