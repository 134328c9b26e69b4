"""For whom the running task works, so that what is taken up meanwhile is on somebody's account."""

from collections.abc import Callable
from contextvars import ContextVar

from instance_manager.core.slots import Holder


class Caller:
    """A call of a client, until all work for it is done; its tasks inherit it."""

    def __init__(self, holder: Holder, take: Callable[[int], None], give_back: Callable[[int], None]) -> None:
        """`take` raises `ResourceExhaustedError` if there is no room for so many bytes more."""
        self.holder = holder
        self._take = take
        self._give_back = give_back
        self._bytes = 0
        self._users = 1

    def hold(self, size: int) -> None:
        """Take room for bytes until the work is done.

        Raises:
            ResourceExhaustedError: if there is none.
        """
        self._take(size)
        self._bytes += size

    def retain(self) -> None:
        """Note that work goes on that does not end with the call."""
        self._users += 1

    def release(self) -> None:
        """Note that the call, or such work, has ended; with the last of it the room is free."""
        self._users -= 1
        if not self._users and self._bytes:
            self._give_back(self._bytes)
            self._bytes = 0


def _nothing(_: int) -> None:
    """Count nothing."""


_ITSELF = Caller(Holder("", ""), _nothing, _nothing)
CALLER: ContextVar[Caller] = ContextVar("CALLER", default=_ITSELF)
"""By default this program itself, which has no bound."""
