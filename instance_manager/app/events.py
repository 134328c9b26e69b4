"""The event log: every change once, in order, told to any number of subscribers in bounded memory.

A change is recorded as the value it led to, so what a slow subscriber reads later is still what happened.
A subscriber that falls too far behind is cut off and told so; nobody waits for it.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from instance_manager.core.process import Process

DEFAULT_BACKLOG = 8192
"""Events a subscriber may lag behind; about 8 MiB, shared by all who lag."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one process."""

    revision: int
    """Increasing by one from change to change."""
    time: float
    """Seconds since the epoch."""
    process: Process
    """As it was right after the change."""
    deleted: bool
    """It has left the list; nothing more will be told about this UUID."""


class LaggedError(Exception):
    """The subscriber was cut off because it did not read."""


class Subscription:
    """One subscriber's view of the log from the moment it was made; iterate over it, then close it."""

    def __init__(self, log: "EventLog", backlog: int) -> None:
        self._log = log
        self._backlog = backlog
        self._pending: deque[Change] = deque()
        self._arrived = asyncio.Event()
        self._closed = False
        self.lagged = False
        self.on_lag: Callable[[], object] = lambda: None
        """Called once when the subscriber is cut off, to wake one that is stuck in sending."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._log.unsubscribe(self)

    def offer(self, change: Change) -> None:
        """Take a change, or cut the subscriber off if it has too many unread."""
        if len(self._pending) >= self._backlog:
            self.lagged = True
            self._pending.clear()
            self._log.unsubscribe(self)
            self.on_lag()
        else:
            self._pending.append(change)
        self._arrived.set()

    def close(self) -> None:
        """End the iteration after what has been offered."""
        self._closed = True
        self._arrived.set()

    async def __aiter__(self) -> AsyncIterator[Change]:
        """Yield each change; end when the log is closed.

        Raises:
            LaggedError: if the subscriber was cut off.
        """
        while True:
            while self._pending:
                yield self._pending.popleft()
            if self.lagged:
                raise LaggedError
            if self._closed:
                return
            self._arrived.clear()
            await self._arrived.wait()


class EventLog:
    """Numbers the changes and hands each to every subscriber."""

    def __init__(
        self,
        now: Callable[[], float],
        *,
        backlog: int = DEFAULT_BACKLOG,
        revision: int = 0,
        observe: Callable[[Change], object] = lambda _: None,
    ) -> None:
        """Begin with nobody subscribed.

        Args:
            now: returns seconds since the epoch.
            backlog: changes a subscriber may lag behind.
            revision: of the latest change of an earlier daemon.
            observe: called with every change before the subscribers are told.
        """
        self._now = now
        self._observe = observe
        self._backlog = backlog
        self._subscriptions: set[Subscription] = set()
        self._closed = False
        self.revision = revision
        """Of the latest change."""
        self.cut_off = 0
        """Subscribers that were cut off because they did not read."""

    @property
    def subscribers(self) -> int:
        """How many subscribers there are."""
        return len(self._subscriptions)

    def publish(self, process: Process, *, deleted: bool = False) -> None:
        """Record a change and tell everyone."""
        self.revision += 1
        change = Change(self.revision, self._now(), process, deleted)
        self._observe(change)
        for subscription in tuple(self._subscriptions):
            subscription.offer(change)
            self.cut_off += subscription.lagged

    def subscribe(self) -> Subscription:
        """Return a subscription to every later change."""
        subscription = Subscription(self, self._backlog)
        if self._closed:
            subscription.close()
        else:
            self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Forget a subscription; nothing if it is gone already."""
        self._subscriptions.discard(subscription)

    def close(self) -> None:
        """End every subscription once it has been told what is already known."""
        self._closed = True
        for subscription in self._subscriptions:
            subscription.close()
