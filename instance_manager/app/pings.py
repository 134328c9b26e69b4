"""Pings: watchers who only want to know that something has changed, however often it did."""

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self


class PingSubscription:
    """One watcher: iterate over it, then close it. Pings that it has not read yet are one."""

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
        """Take a ping; tell whether it is a new one for the watcher."""
        new = not self._pending.is_set()
        self._pending.set()
        return new

    def close(self) -> None:
        """End the iteration after a last ping."""
        self._closed = True
        self._pending.set()

    async def __aiter__(self) -> AsyncIterator[None]:
        """Yield once for all that has happened since the last time, and once more at the end."""
        while True:
            await self._pending.wait()
            self._pending.clear()
            yield
            if self._closed:
                return


class Pings:
    """Tells every watcher that something has changed."""

    def __init__(self) -> None:
        self._subscriptions: set[PingSubscription] = set()
        self._closed = False
        self.merged = 0
        """Pings that became one with an earlier one because the watcher had not read it."""

    @property
    def subscribers(self) -> int:
        """How many watchers there are."""
        return len(self._subscriptions)

    def ping(self) -> None:
        """Say that something has changed."""
        for subscription in self._subscriptions:
            self.merged += not subscription.offer()

    def subscribe(self) -> PingSubscription:
        """Return a subscription to every later change."""
        subscription = PingSubscription(self)
        if self._closed:
            subscription.close()
        else:
            self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: PingSubscription) -> None:
        """Forget a watcher; nothing if it is gone already."""
        self._subscriptions.discard(subscription)

    def close(self) -> None:
        """End every subscription."""
        self._closed = True
        for subscription in self._subscriptions:
            subscription.close()
