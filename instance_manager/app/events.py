"""The event log: every change once, in order, for any number of subscribers, in bounded memory.

A change is recorded as the value it led to, so a slow subscriber still reads what happened. A subscriber that
falls too far behind is cut off with an error; nobody waits for it.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from types import TracebackType
from typing import Self

from instance_manager.app.history import DEFAULT_MEMORY, EmptyEventStore, History
from instance_manager.app.interfaces import EventStore
from instance_manager.core.change import Change
from instance_manager.core.process import Process, State

DEFAULT_BACKLOG = 8192
"""Changes a subscriber may lag behind; about 8 MiB, shared by all that lag."""


class LaggedError(Exception):
    """The subscriber was cut off because it did not read."""


class Subscription:
    """One subscriber's view of the log, from its creation on: a context manager to iterate over."""

    def __init__(self, log: "EventLog", backlog: int) -> None:
        self._log = log
        self._backlog = backlog
        self._pending: deque[Change] = deque()
        self._arrived = asyncio.Event()
        self._closed = False
        self.lagged = False
        self.on_lag: Callable[[], object] = lambda: None
        """Called once when the subscriber is cut off, to interrupt one that is blocked while sending."""

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
        """End the iteration after the changes offered so far."""
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
    """Numbers the changes, remembers the latest and offers each one to every subscriber."""

    def __init__(
        self,
        now: Callable[[], float],
        *,
        backlog: int = DEFAULT_BACKLOG,
        memory: int = DEFAULT_MEMORY,
        past: EventStore | None = None,
        observe: Callable[[Change], object] = lambda _: None,
    ) -> None:
        """Start without subscribers.

        Args:
            now: returns seconds since the epoch.
            backlog: how many changes a subscriber may lag behind.
            memory: how many changes are remembered.
            past: the changes of earlier daemons.
            observe: called with every change before the subscribers get it.
        """
        self._now = now
        self._observe = observe
        self._backlog = backlog
        self._subscriptions: set[Subscription] = set()
        self._closed = False
        self.history = History(past or EmptyEventStore(), memory)
        self.cut_off = 0
        """How many subscribers were cut off because they did not read."""

    @property
    def revision(self) -> int:
        """The revision of the latest change."""
        return self.history.revision

    @property
    def subscribers(self) -> int:
        """The number of subscribers."""
        return len(self._subscriptions)

    def prepare(self, process: Process, previous: State | None, endings: Iterable[bool]) -> list[Change]:
        """Number the next changes of a process without publishing them yet.

        Args:
            process: the process as it is now.
            previous: its state before.
            endings: one item for each change: whether the process leaves the list with it.
        """
        changes: list[Change] = []
        for revision, deleted in enumerate(endings, start=self.revision + 1):
            changes.append(Change(revision, self._now(), process, previous, deleted))
            previous = process.state
        return changes

    def publish(self, changes: Iterable[Change]) -> None:
        """Record the changes that were just drafted and offer them to every subscriber."""
        for change in changes:
            self.history.add(change)
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
        """Remove a subscription; does nothing if it was removed before."""
        self._subscriptions.discard(subscription)

    def close(self) -> None:
        """End every subscription after the changes published so far."""
        self._closed = True
        for subscription in self._subscriptions:
            subscription.close()
