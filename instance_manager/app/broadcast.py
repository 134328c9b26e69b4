"""Fan-out: every item to every subscriber, in order, in bounded memory; a slow subscriber delays nobody."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from enum import Enum, auto
from types import TracebackType
from typing import Generic, Self, TypeVar

Item = TypeVar("Item")


MAX_BACKLOG_BYTES = 16 << 20
"""Largest weight of the unread items of a subscriber; those who lag share the items."""


class Overflow(Enum):
    """What happens to a subscriber with a full backlog of unread items."""

    CUT_OFF = auto()
    """Its subscription ends with an error."""
    MERGE = auto()
    """The new item is dropped: the unread ones say the same."""


class LaggedError(Exception):
    """The subscriber was cut off because it did not read."""


class Subscription(Generic[Item]):
    """One subscriber's items, from its creation on: a context manager to iterate over."""

    def __init__(self, broadcaster: "Broadcaster[Item]") -> None:
        self._broadcaster = broadcaster
        self._pending: deque[Item] = deque()
        self._weight = 0
        self._arrived = asyncio.Event()
        self._closed = False
        self.lagged = False
        """Whether it was cut off."""
        self.on_lag: Callable[[], object] = lambda: None
        """Called once when the subscriber is cut off, to interrupt one that is blocked while sending."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._broadcaster.unsubscribe(self)

    def offer(self, item: Item) -> bool:
        """Queue an item; return False if the backlog is full."""
        weight = self._broadcaster.weigh(item)
        if len(self._pending) >= self._broadcaster.backlog or (
            self._pending and self._weight + weight > MAX_BACKLOG_BYTES
        ):
            return False
        self._pending.append(item)
        self._weight += weight
        self._arrived.set()
        return True

    def cut_off(self) -> None:
        """End the iteration with an error, and drop the unread items."""
        self.lagged = True
        self._pending.clear()
        self._weight = 0
        self._arrived.set()
        self.on_lag()

    def close(self) -> None:
        """End the iteration after the items offered so far."""
        self._closed = True
        self._arrived.set()

    async def __aiter__(self) -> AsyncIterator[Item]:
        """Yield each item; end when the broadcaster is closed.

        Raises:
            LaggedError: if the subscriber was cut off.
        """
        while True:
            while self._pending:
                item = self._pending.popleft()
                self._weight -= self._broadcaster.weigh(item)
                yield item
            if self.lagged:
                raise LaggedError
            if self._closed:
                return
            self._arrived.clear()
            await self._arrived.wait()


class Broadcaster(Generic[Item]):
    """Offers each item to every subscriber."""

    def __init__(
        self,
        backlog: int = 1,
        overflow: Overflow = Overflow.MERGE,
        weigh: Callable[[Item], int] = lambda _: 0,
    ) -> None:
        """Start without subscribers.

        Args:
            backlog: largest number of unread items of a subscriber; with 1 and `MERGE`, items are pings.
            overflow: what happens when there would be more, or more than `MAX_BACKLOG_BYTES`.
            weigh: returns how many bytes an item takes.
        """
        self.backlog = backlog
        self.weigh = weigh
        self._overflow = overflow
        self._subscriptions: set[Subscription[Item]] = set()
        self._observers: list[Callable[[Item], object]] = []
        self._closed = False
        self.overflows = 0
        """How often a subscriber's backlog was full."""

    @property
    def subscribers(self) -> int:
        """The number of subscribers."""
        return len(self._subscriptions)

    def observe(self, callback: Callable[[Item], object]) -> None:
        """Call `callback` synchronously with every later item, before the subscribers get it."""
        self._observers.append(callback)

    def publish(self, item: Item) -> None:
        """Offer an item to every observer, then to every subscriber."""
        for callback in self._observers:
            callback(item)
        self.offer(item)

    def offer(self, item: Item) -> None:
        """Offer an item to every subscriber, but not to the observers."""
        for subscription in tuple(self._subscriptions):
            if subscription.offer(item):
                continue
            self.overflows += 1
            if self._overflow is Overflow.CUT_OFF:
                self.unsubscribe(subscription)
                subscription.cut_off()

    def subscribe(self) -> Subscription[Item]:
        """Return a subscription to every later item."""
        subscription = Subscription(self)
        if self._closed:
            subscription.close()
        else:
            self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription[Item]) -> None:
        """Remove a subscription; does nothing if it was removed before."""
        self._subscriptions.discard(subscription)

    def close(self) -> None:
        """End every subscription after the items published so far."""
        self._closed = True
        for subscription in self._subscriptions:
            subscription.close()


class Pings(Broadcaster[None]):
    """For watchers that only need to know that something has changed: unread pings are merged into one."""

    def ping(self) -> None:
        """Ping every watcher."""
        self.publish(None)

    def subscribe(self) -> Subscription[None]:
        """Return a subscription to every later ping; to a single one if the broadcaster is closed."""
        subscription = super().subscribe()
        if self._closed:
            subscription.offer(None)
        return subscription

    def close(self) -> None:
        """End every subscription after one last ping."""
        self.ping()
        super().close()
