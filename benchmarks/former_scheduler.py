"""Fair scheduling: no client waits long because another one makes many calls.

gRPC hands calls over one at a time in the order they arrive, so a client with hundreds of calls in flight
makes everybody wait until all of these are answered. But accepting a call is cheap, and a client that waits
for an answer makes no further calls. So while many calls arrive, most of them are only queued. When no more
follow, they are answered: changes first, then one call of each client in turn. As answers go out, only about
as many new calls come in, so the queue inside gRPC stays short.
"""

import asyncio
from collections import deque

from instance_manager.core.errors import ResourceExhaustedError

_QUIET = 0.003
"""Seconds without a new call after which no more are expected: gRPC would have handed over the next."""
_LOOKS = 3
"""Rounds of the event loop that must also pass: the seconds may have been spent waiting for a CPU."""
_COME_PER_ANSWER = 2
"""New calls accepted for each one answered while calls arrive, so that gRPC's own queue drains."""
_AT_ONCE = 8
"""Calls answered at a time when no more arrive."""
_FREE_READS, _FREE_CHANGES = 32, 64
"""Calls that pass without queueing after hardly any were found waiting."""
_HARDLY_ANY = 2
MAX_WAITING_BYTES = 64 << 20
"""Largest number of bytes of queued requests; further calls are refused."""


class Turns:
    """Lets calls through in turn."""

    def __init__(self) -> None:
        self._changes = _Lane(_FREE_CHANGES)
        self._reads = _Lane(_FREE_READS)
        self._bytes = 0
        self._arrived = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """The number of queued calls."""
        return len(self._changes) + len(self._reads)

    async def wait(self, client: str, *, change: bool, size: int) -> None:
        """Wait until a call may be answered.

        Args:
            client: identifies the client.
            change: whether the call changes something; such calls go first.
            size: size of the request in bytes.

        Raises:
            ResourceExhaustedError: if too many bytes are queued already.
        """
        lane = self._changes if change else self._reads
        if lane.pass_freely():
            return
        if self._bytes + size > MAX_WAITING_BYTES:
            raise ResourceExhaustedError(
                f"cannot take the call: requests of {self._bytes} bytes wait to be answered and "
                f"{MAX_WAITING_BYTES} is the most there may be; ask again later"
            )
        turn = asyncio.get_running_loop().create_future()
        lane.add(client, turn)
        self._arrived += 1
        if self._arrived % _COME_PER_ANSWER == 0:
            self._next()
        self._look_later()
        self._bytes += size
        try:
            await turn
        finally:
            self._bytes -= size

    def _look_later(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_QUIET, self._look, self._arrived, _LOOKS)

    def _look(self, arrived: int, more: int) -> None:
        """Let calls through if none has arrived in the meantime."""
        if arrived != self._arrived:
            return
        if more:
            asyncio.get_running_loop().call_soon(self._look, arrived, more - 1)
            return
        self._timer = None
        for lane in (self._changes, self._reads):
            lane.look()
        for _ in range(_AT_ONCE):
            self._next()
        if self.waiting:
            self._look_later()

    def _next(self) -> None:
        turn = self._changes.next() or self._reads.next()
        if turn is not None:
            turn.set_result(None)


class _Lane:
    """A queue of calls that takes one of each client in turn."""

    def __init__(self, free: int) -> None:
        self._free = self._left = free
        self._clients: dict[str, deque[asyncio.Future[None]]] = {}
        """In the order of their turns."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def pass_freely(self) -> bool:
        """Return whether a call may pass without queueing."""
        if self._left == 0 or self._count:
            return False
        self._left -= 1
        return True

    def look(self) -> None:
        """Note that no more calls arrive at the moment."""
        self._left = self._free if self._count <= _HARDLY_ANY else 0

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
