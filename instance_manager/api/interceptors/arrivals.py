"""Receiving requests, of which a client may have sent any part: few at a time, and not for ever.

gRPC keeps what has come of a request once it is asked for it; before that, no more than the first window of
the stream. So a request for which there is no room waits. `core/slots.py` decides who waits for whom.
"""

import asyncio
from typing import Any

import grpc
import grpc.aio

from instance_manager.api.service import Context
from instance_manager.core.slots import Holder, Slots

MAX_ARRIVING = 128
"""Largest number of requests that are received at the same time."""
MAX_HELD = 1024
"""Largest number of requests that have not arrived, those that wait included.

Fewer than the calls that there may be, so that room is left for those of other clients.
"""
PATIENCE = 1.0
"""Seconds that a request may take to arrive while others wait; then its call is refused."""
SHORT_PATIENCE = 0.3
"""The same if requests of a client wait that has fewer under way."""
MAX_LARGE_ARRIVING, MAX_LARGE_HELD = 4, 256
"""The same for requests of methods that take large ones."""
MAX_BESIDE_LARGE = 24
"""The same for those of other methods of the same server: gRPC would take large ones for them, too."""
_PAUSE = 0.005
"""Seconds for which the event loop takes in what has arrived, before a request counts as late."""


class Arrivals:
    """Receives the requests of calls, those of different clients in turn."""

    def __init__(self, most: int | None = None, held: int | None = None) -> None:
        """Receive none yet.

        Args:
            most: largest number that are received at the same time, `MAX_ARRIVING` if it is None.
            held: the same with those that wait, `MAX_HELD` if it is None.
        """
        self._most = MAX_ARRIVING if most is None else most
        held = MAX_HELD if held is None else held
        self._slots: Slots[asyncio.Task[Any]] = Slots(self._most, held, PATIENCE, SHORT_PATIENCE)
        self._turns: dict[asyncio.Task[Any], asyncio.Future[None]] = {}
        """Of those that wait."""
        self._given_up: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return self._slots.held

    async def receive(self, context: Context) -> Any:
        """Receive the request of the call of this task; the call is refused if it does not come."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - gRPC handles each call in one
        holder = holder_of(context.peer())
        try:
            await self._turn(task, holder)
            request = await context.read()
        except grpc.aio.InternalError:  # the client is gone; gRPC would print a traceback
            raise asyncio.CancelledError from None
        except asyncio.CancelledError:
            if task not in self._given_up:
                raise
            task.uncancel()
            await _refuse(
                context,
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"cannot wait any longer for the rest of the request: {self._most} are being received and "
                "others wait; send it at once, or ask again later",
            )
        finally:
            self._given_up.discard(task)
            self._turns.pop(task, None)
            self._slots.remove(holder, task)
            self._grant()
        if request is grpc.aio.EOF:
            await _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "cannot answer a call without a request")
        return request

    async def _turn(self, task: asyncio.Task[Any], holder: Holder) -> None:
        """Wait for a slot."""
        loop = asyncio.get_running_loop()
        turn = self._turns[task] = loop.create_future()
        if (surplus := self._slots.add(holder, task, loop.time())) is not None:
            self._give_up(surplus)
        self._grant()
        if not turn.done():
            self._look_later()
            await turn

    def _grant(self) -> None:
        """Give free slots to those that wait."""
        now = asyncio.get_running_loop().time()
        while (task := self._slots.grant(now)) is not None:
            turn = self._turns[task]
            if not turn.done():  # its client may have gone just now
                turn.set_result(None)

    def _look_later(self) -> None:
        """Look when somebody has to give up a slot."""
        due = self._slots.due()
        if due is not None and (self._timer is None or due < self._timer.when()):
            self._look_at(due)

    def _look_at(self, due: float, *, again: bool = False) -> None:
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
        due = max(due, loop.time() + _PAUSE)
        self._timer = loop.call_at(due, self._look, due, again)

    def _look(self, expected: float, again: bool) -> None:
        """Give up the requests that take too long while others wait."""
        self._timer = None
        now = asyncio.get_running_loop().time()
        if now - expected > SHORT_PATIENCE and not again:
            # The daemon stood still: what has come meanwhile is not late.
            self._look_at(now, again=True)
            return
        while (due := self._slots.due()) is not None and due <= now:
            self._give_up(self._slots.give_up())
            self._grant()
        self._look_later()

    def _give_up(self, task: asyncio.Task[Any]) -> None:
        self._given_up.add(task)
        task.cancel()


def holder_of(peer: str) -> Holder:
    """Return the client that gRPC names so; those of a Unix socket cannot be told apart."""
    return Holder(peer.rpartition(":")[0], peer)


async def _refuse(context: Context, code: grpc.StatusCode, reason: str) -> None:
    """Abort a call, whose client may be gone."""
    try:
        await context.abort(code, reason)
    except grpc.aio.InternalError:
        raise asyncio.CancelledError from None
