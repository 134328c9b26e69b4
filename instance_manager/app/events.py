"""The event log: every change once, in order, told to any number of subscribers in bounded memory.

A change is recorded as the value it led to, so what a slow subscriber reads later is still what happened.
A subscriber that falls too far behind is cut off and told so; nobody waits for it.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from types import TracebackType
from typing import Self

from instance_manager.app.history import DEFAULT_MEMORY, History, NoPast
from instance_manager.app.interfaces import Past
from instance_manager.core.change import Change
from instance_manager.core.process import Process, State

DEFAULT_BACKLOG = 8192
"""Events a subscriber may lag behind; about 8 MiB, shared by all who lag."""


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
    """Numbers the changes, remembers the latest and hands each to every subscriber."""

    def __init__(
        self,
        now: Callable[[], float],
        *,
        backlog: int = DEFAULT_BACKLOG,
        memory: int = DEFAULT_MEMORY,
        past: Past | None = None,
        observe: Callable[[Change], object] = lambda _: None,
    ) -> None:
        """Begin with nobody subscribed.

        Args:
            now: returns seconds since the epoch.
            backlog: changes a subscriber may lag behind.
            memory: changes that are remembered.
            past: what earlier daemons have told.
            observe: called with every change before the subscribers are told.
        """
        self._now = now
        self._observe = observe
        self._backlog = backlog
        self._subscriptions: set[Subscription] = set()
        self._closed = False
        self.history = History(past or NoPast(), memory)
        self.listeners: list[Callable[[str], object]] = []
        """Called at once with the name of each process that has changed, before anybody can look at it."""
        self.cut_off = 0
        """Subscribers that were cut off because they did not read."""

    @property
    def revision(self) -> int:
        """Of the latest change."""
        return self.history.revision

    @property
    def subscribers(self) -> int:
        """How many subscribers there are."""
        return len(self._subscriptions)

    def draft(self, process: Process, previous: State | None, endings: Iterable[bool]) -> list[Change]:
        """Number the next changes of a process without telling them yet.

        Args:
            process: as it is now.
            previous: its state before.
            endings: for each change, whether the process leaves the list with it.
        """
        changes: list[Change] = []
        for revision, deleted in enumerate(endings, start=self.revision + 1):
            changes.append(Change(revision, self._now(), process, previous, deleted))
            previous = process.state
        return changes

    def publish(self, changes: Iterable[Change]) -> None:
        """Remember the changes that were just drafted and tell everyone."""
        for change in changes:
            self.history.add(change)
            self._observe(change)
            for subscription in tuple(self._subscriptions):
                subscription.offer(change)
                self.cut_off += subscription.lagged
            self.notify(change.process.name)

    def notify(self, name: str) -> None:
        """Tell the listeners that what has this name is another, or has changed."""
        for listener in self.listeners:
            listener(name)

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
