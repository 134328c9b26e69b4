"""Turns at something of which there is little: slots are taken in turn, and not kept for ever.

`core/slots.py` decides who waits for whom, and who has to give up.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from instance_manager.core.slots import Holder, Slots

T = TypeVar("T")

_PAUSE = 0.005
"""Seconds for which the event loop takes in what has arrived, before work counts as late."""


class GivenUpError(Exception):
    """The work took too long while others waited, or too many wait."""


class Turns:
    """Lets a number of tasks work at the same time, those of different clients in turn."""

    def __init__(self, most: int, held: int, patience: float, short_patience: float) -> None:
        """Begin with no task; see `core.slots.Slots`.

        Args:
            most: largest number of tasks that work at the same time.
            held: the same with those that wait.
            patience: seconds that work may take while others wait; then it is given up.
            short_patience: the same if tasks of a client wait that has fewer at work.
        """
        self.most = most
        self._short_patience = short_patience
        self._slots: Slots[asyncio.Task[Any]] = Slots(most, held, patience, short_patience)
        self._turns: dict[asyncio.Task[Any], asyncio.Future[None]] = {}
        """Of those that wait."""
        self._given_up: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return self._slots.held

    async def work(self, holder: Holder, work: Callable[[], Awaitable[T]]) -> T:
        """Do work in the running task when it is its turn, and return the result.

        Raises:
            GivenUpError: if it had to make room for others.
        """
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in one
        try:
            await self._turn(task, holder)
            return await work()
        except asyncio.CancelledError:
            if task not in self._given_up:
                raise
            task.uncancel()
            raise GivenUpError from None
        finally:
            self._given_up.discard(task)
            self._turns.pop(task, None)
            self._slots.remove(holder, task)
            self._grant()

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
        """Give up the work that takes too long while others wait."""
        self._timer = None
        now = asyncio.get_running_loop().time()
        if now - expected > self._short_patience and not again:
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
