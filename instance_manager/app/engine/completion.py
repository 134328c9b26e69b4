"""Completing changes whose caller goes away."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from instance_manager.core.errors import ResourceExhaustedError

T = TypeVar("T")

MOST = 1024
"""Largest number of changes in progress; those whose callers have gone count, too."""


class Completion:
    """Completes every change that was begun: half of one would leave replicas that differ."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def of(self, change: Coroutine[Any, Any, T]) -> T:
        """Return what a change returns. If the caller is cancelled, the change goes on to its end.

        Raises:
            ResourceExhaustedError: if too many are in progress; it is not begun then.
        """
        if len(self._tasks) >= MOST:
            change.close()
            raise ResourceExhaustedError(
                f"cannot begin another change of an engine: {MOST} are in progress and that is the most "
                "there may be; ask again later"
            )
        task = asyncio.get_running_loop().create_task(change)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # nobody may be left to hear of it

    async def close(self) -> None:
        """Cancel what is in progress."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
