"""Receiving requests, of which a client may have sent any part: few at a time, and not for ever.

gRPC keeps what has come of a request once it is asked for it; before that, no more than the first window of
the stream. So a request for which there is no room waits.
"""

import asyncio
from collections import deque
from typing import Any

import grpc
import grpc.aio

from instance_manager.api.service import Context

MAX_ARRIVING = 128
"""Largest number of requests that are received at the same time."""
PATIENCE = 1.0
"""Seconds that a request may take to arrive while others wait; then its call is refused."""


class Arrivals:
    """Receives the requests of all calls."""

    def __init__(self) -> None:
        self._since: dict[asyncio.Task[Any], float] = {}
        """When each began to be received, the first one first."""
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._since)

    async def receive(self, context: Context) -> Any:
        """Receive the request of the call of this task; the call is refused if it does not come."""
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None  # noqa: S101 - gRPC handles each call in one
        while len(self._since) >= MAX_ARRIVING:
            turn = loop.create_future()
            self._waiting.append(turn)
            self._look_later()
            await turn
        self._since[task] = loop.time()
        try:
            request = await context.read()
        except asyncio.CancelledError:
            if task in self._since:
                raise
            task.uncancel()
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"cannot wait any longer for the rest of the request: {MAX_ARRIVING} are being received and "
                "others wait; send it at once, or ask again later",
            )
        finally:
            self._end(task)
        if request is grpc.aio.EOF:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "cannot answer a call without a request")
        return request

    def _end(self, task: asyncio.Task[Any]) -> None:
        if self._since.pop(task, None) is None:
            return
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                break

    def _look_later(self) -> None:
        if self._timer is None and self._since:
            due = next(iter(self._since.values())) + PATIENCE
            self._timer = asyncio.get_running_loop().call_at(due, self._look)

    def _look(self) -> None:
        """Give up the requests that take too long, if others wait."""
        self._timer = None
        now = asyncio.get_running_loop().time()
        if all(turn.done() for turn in self._waiting):
            return
        for task in [task for task, since in self._since.items() if now - since >= PATIENCE]:
            self._end(task)
            task.cancel()
        self._look_later()
