"""Long work in slices, so that the event loop gets its turn."""

import asyncio

_SLICE = 0.005
"""Seconds of work until the event loop gets its turn."""


class Slices:
    """Divides long work into slices, between which the event loop gets its turn."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._begun = self._loop.time()

    async def pause(self) -> None:
        """Let others work, if this slice is over."""
        if self._loop.time() - self._begun > _SLICE:
            await asyncio.sleep(0)
            self._begun = self._loop.time()
