"""Pings: for watchers that only need to know that something has changed."""

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self


class PingSubscription:
    """One watcher: a context manager to iterate over. Unread pings are merged into one."""

    def __init__(self, pings: "Pings") -> None:
        self._pings = pings
        self._pending = asyncio.Event()
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pings.unsubscribe(self)

    def offer(self) -> bool:
        """Add a ping; return False if it was merged into an unread one."""
        new = not self._pending.is_set()
        self._pending.set()
        return new

    def close(self) -> None:
        """End the iteration after one last ping."""
        self._closed = True
        self._pending.set()

    async def __aiter__(self) -> AsyncIterator[None]:
        """Yield once for all changes since the last time, and once more at the end."""
        while True:
            await self._pending.wait()
            self._pending.clear()
            yield
            if self._closed:
                return


class Pings:
    """Sends pings to all watchers."""

    def __init__(self) -> None:
        self._subscriptions: set[PingSubscription] = set()
        self._closed = False
        self.merged = 0
        """Number of pings merged into an earlier one that the watcher had not read."""

    @property
    def subscribers(self) -> int:
        """The number of watchers."""
        return len(self._subscriptions)

    def ping(self) -> None:
        """Ping every watcher."""
        for subscription in self._subscriptions:
            self.merged += not subscription.offer()

    def subscribe(self) -> PingSubscription:
        """Return a subscription to all later pings."""
        subscription = PingSubscription(self)
        if self._closed:
            subscription.close()
        else:
            self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: PingSubscription) -> None:
        """Remove a watcher; does nothing if it was removed before."""
        self._subscriptions.discard(subscription)

    def close(self) -> None:
        """End every subscription."""
        self._closed = True
        for subscription in self._subscriptions:
            subscription.close()
