"""Whose call is answered next: none waits long because another client asks a lot.

gRPC hands calls over one at a time in the order they came in, so a client that keeps hundreds of calls under
way makes everybody wait until all are answered. But to take a call is quick, and who waits for an answer asks
nothing. So while many calls come in they are mostly only taken. When no more follow they are answered:
changes first, then one of each client in turn. As many new ones come in as were answered, so few are ahead of
the next.
"""

import asyncio
from collections import deque

from instance_manager.core.errors import ResourceExhaustedError

_QUIET = 0.003
"""Seconds without a new call after which no more follow: gRPC has handed over the next by then."""
_LOOKS = 3
"""Rounds of the event loop without a new call, too: the time may have been spent waiting for a CPU."""
_COME_PER_ANSWER = 2
"""New calls for each that is answered while they come in, so that what gRPC holds back is taken soon."""
_AT_ONCE = 8
"""Calls answered when no more follow, until it is looked again."""
_FREE_READS, _FREE_CHANGES = 32, 64
"""Calls answered without a look after one that has found hardly any waiting."""
_HARDLY_ANY = 2
MAX_WAITING_BYTES = 64 << 20
"""Bytes of requests that may wait; what comes on top is refused."""


class Turns:
    """Lets calls through, in turn."""

    def __init__(self) -> None:
        self._changes = _Lane(_FREE_CHANGES)
        self._reads = _Lane(_FREE_READS)
        self._bytes = 0
        self._arrived = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return len(self._changes) + len(self._reads)

    async def wait(self, client: str, *, change: bool, size: int) -> None:
        """Wait until a call may be answered.

        Args:
            client: whose call it is.
            change: whether it changes something; those go first.
            size: of the request in bytes.

        Raises:
            ResourceExhaustedError: if too much waits already.
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
        """Answer if nothing has come in meanwhile."""
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
    """Calls that wait, one of each client in turn."""

    def __init__(self, free: int) -> None:
        self._free = self._left = free
        self._clients: dict[str, deque[asyncio.Future[None]]] = {}
        """In the order of their turns."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def pass_freely(self) -> bool:
        """Let a call through that need not wait."""
        if self._left == 0 or self._count:
            return False
        self._left -= 1
        return True

    def look(self) -> None:
        """Say that no more calls follow at the moment."""
        self._left = self._free if self._count <= _HARDLY_ANY else 0

    def add(self, client: str, turn: asyncio.Future[None]) -> None:
        """Let a call wait."""
        self._clients.setdefault(client, deque()).append(turn)
        self._count += 1

    def next(self) -> asyncio.Future[None] | None:
        """Take out whose turn it is, None if nobody waits."""
        while self._clients:
            client = next(iter(self._clients))
            turns = self._clients.pop(client)
            turn = turns.popleft()
            self._count -= 1
            if turns:
                self._clients[client] = turns
            # The caller may have gone away meanwhile.
            if not turn.done():
                return turn
        return None
