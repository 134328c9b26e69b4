"""Fair scheduling: no client waits long because another one makes many calls.

gRPC keeps calls that it has not handed over yet in one queue, first in, first out, so they must not stay
there. Calls that arrive are queued here, those of each client on their own. In each round of the event
loop one is answered: a change if any waits, else a read, of each client in turn. Reads wait until gRPC has
handed over all calls. When that is so is known: gRPC accepts a call, then reads its request, and by the time
the request arrives it has accepted the next call, if there is one. A call that comes when that is known
already does not wait at all.
"""

import asyncio
from collections import deque

from instance_manager.api.interceptors.call import Call, Handler
from instance_manager.api.interceptors.rejection_log import RejectionLog
from instance_manager.api.service import Method
from instance_manager.core.errors import ResourceExhaustedError

MAX_QUEUED_CALLS = 4096
"""Largest number of queued calls of a client; all that come over Unix sockets are one."""
_ROUNDS_TO_ACCEPT = 8
"""Rounds of the event loop after a call has arrived until the next one, if gRPC has one, is accepted."""
_ROUNDS_TO_ARRIVE = 1000
"""Rounds after which the request of a call that was accepted is not waited for: its client may be slow."""
_ACCEPTED_PER_ANSWER = 2
"""One call is answered for so many that are accepted, so that reads go on while calls come without pause."""


class FairQueue:
    """A queue that serves one call of each client in turn."""

    def __init__(self) -> None:
        self._clients: dict[str, deque[asyncio.Future[None]]] = {}
        """In the order of their turns."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def queued(self, client: str) -> int:
        """Return the number of queued calls of a client."""
        return len(self._clients.get(client, ()))

    def add(self, client: str, turn: asyncio.Future[None]) -> None:
        """Queue a call."""
        self._clients.setdefault(client, deque()).append(turn)
        self._count += 1

    def next(self) -> asyncio.Future[None] | None:
        """Remove and return the next call, None if there is none."""
        while self._clients:
            client = next(iter(self._clients))
            turns = self._clients.pop(client)
            turn = turns.popleft()
            self._count -= 1
            if turns:
                self._clients[client] = turns
            # The caller may have disconnected in the meantime.
            if not turn.done():
                return turn
        return None


class FairScheduler:
    """Lets calls through in turn."""

    def __init__(self) -> None:
        self._changes = FairQueue()
        self._reads = FairQueue()
        self._accepted = 0
        self._arriving = 0
        """Number of calls that were accepted and whose request has not arrived yet."""
        self._rounds = 0
        """Rounds of the event loop since a call was accepted or has arrived."""
        self._draining = False
        self._idle = True
        """Whether gRPC had nothing to hand over and nothing was queued: the next call does not wait."""

    @property
    def waiting(self) -> int:
        """The number of queued calls."""
        return len(self._changes) + len(self._reads)

    def on_accepted(self) -> None:
        """Note that gRPC has accepted a call, whose request arrives next."""
        self._arriving += 1
        self._rounds = 0
        self._accepted += 1
        if self._accepted % _ACCEPTED_PER_ANSWER == 0:
            self._answer(self._changes.next() or self._reads.next())

    def on_arrived(self) -> None:
        """Note that the request of a call has arrived."""
        self._arriving = max(0, self._arriving - 1)
        self._rounds = 0

    async def wait(self, client: str, *, changes: bool) -> None:
        """Wait until a call may be answered.

        Args:
            client: identifies the client.
            changes: whether the call changes something; such calls go first.

        Raises:
            ResourceExhaustedError: if too much is queued already.
        """
        queue = self._changes if changes else self._reads
        if queue.queued(client) >= MAX_QUEUED_CALLS:
            raise ResourceExhaustedError(
                f"cannot take the call: {MAX_QUEUED_CALLS} calls of this client wait to be answered and "
                "that is the most there may be; ask again later"
            )
        was_idle, self._idle = self._idle, False
        if not self._draining:
            self._drain_soon()
        if was_idle:
            return
        turn = asyncio.get_running_loop().create_future()
        queue.add(client, turn)
        await turn

    def _drain_soon(self) -> None:
        self._draining = not self._idle
        if self._draining:
            asyncio.get_running_loop().call_soon(self._drain)

    def _drain(self) -> None:
        """Answer one call, if any may be, and come back in the next round unless there is nothing to do."""
        self._rounds += 1
        turn = self._changes.next()
        if turn is None and self._rounds >= (_ROUNDS_TO_ARRIVE if self._arriving else _ROUNDS_TO_ACCEPT):
            self._arriving = 0
            turn = self._reads.next()
            self._idle = turn is None
        self._answer(turn)
        self._drain_soon()

    @staticmethod
    def _answer(turn: asyncio.Future[None] | None) -> None:
        if turn is not None:
            turn.set_result(None)


class FairnessInterceptor:
    """Queues the calls of all methods that do not stream."""

    def __init__(self, scheduler: FairScheduler, rejections: RejectionLog) -> None:
        self._scheduler = scheduler
        self._rejections = rejections

    def wrap(self, method: Method, handler: Handler) -> Handler:
        """Queue the calls of a method unless it streams."""
        if method.streaming:
            return handler

        async def queued(call: Call) -> None:
            try:
                with self._rejections.noting():
                    await self._scheduler.wait(call.context.peer(), changes=method.changes)
            except asyncio.CancelledError:
                # For the audit trail; the caller hears nothing any more.
                call.context.set_details("given up before its turn: nothing was done")
                raise
            await handler(call)

        return queued
