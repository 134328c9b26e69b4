"""The memory of the event log: the latest changes, including those of earlier daemons."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from itertools import islice

from instance_manager.app.interfaces import EventStore
from instance_manager.core.change import Change
from instance_manager.core.errors import OutOfRangeError

DEFAULT_MEMORY = 5000
"""Number of changes kept: about 1,000 processes from start to end, 3 MiB."""


MAX_BYTES = 16 << 20
"""Largest weight of the changes kept; fewer are kept if the processes have long command lines."""


class EmptyEventStore:
    """The past of the very first daemon; implements `interfaces.EventStore`."""

    revision = 0
    epoch = ""

    async def changes(self) -> AsyncIterator[Change]:
        """Yield nothing."""
        nothing: tuple[Change, ...] = ()
        for change in nothing:
            yield change


class History:
    """The latest changes without a gap; those of earlier daemons are loaded when they are needed."""

    def __init__(self, past: EventStore, memory: int) -> None:
        self._past = past
        self._memory = memory
        self._changes: deque[Change] = deque()
        self._bytes = 0
        self._fetching: asyncio.Task[None] | None = None
        self.revision = past.revision
        """Revision of the latest change."""

    @property
    def epoch(self) -> str:
        """Identifies the sequence of revisions."""
        return self._past.epoch

    def add(self, change: Change) -> None:
        """Append a change, and drop the oldest ones if there are too many."""
        self._changes.append(change)
        self._bytes += change.weight
        self.revision = change.revision
        self._drop()

    def _drop(self) -> None:
        while len(self._changes) > self._memory or self._bytes > MAX_BYTES:
            self._bytes -= self._changes.popleft().weight

    def recent(self) -> list[Change]:
        """Return the changes of this daemon that are still in memory."""
        return list(self._changes)

    async def after(self, revision: int, epoch: str = "") -> list[Change]:
        """Return every change after a revision, oldest first.

        Args:
            revision: the last revision that the caller has seen.
            epoch: the epoch of that revision; empty if unknown.

        Raises:
            OutOfRangeError: if some of the changes are no longer kept, or the epoch is another one.
        """
        if epoch and epoch != self.epoch:
            raise await self._refusal(
                revision, f"it is of another sequence ({epoch}, now {self.epoch}), the memory was lost"
            )
        if revision > self.revision:
            raise await self._refusal(revision, f"the latest is {self.revision}")
        if revision < self._first - 1:
            await self._fetch()
        if revision < self._first - 1:
            raise await self._refusal(revision, "what came next is forgotten")
        return list(islice(self._changes, revision - self._first + 1, None))

    async def all(self) -> list[Change]:
        """Return all changes that are kept, oldest first."""
        await self._fetch()
        return list(self._changes)

    async def _refusal(self, revision: int, why: str) -> OutOfRangeError:
        """Return the error that says where a caller can begin instead."""
        await self._fetch()
        return OutOfRangeError(
            f"cannot resume after revision {revision}: {why}; the oldest one that is remembered is "
            f"{self._first}; begin there, or with a snapshot"
        )

    @property
    def _first(self) -> int:
        """Revision of the oldest change in memory, or of the next change if there is none."""
        return self._changes[0].revision if self._changes else self.revision + 1

    async def _fetch(self) -> None:
        """Load the changes of earlier daemons, once for all callers."""
        if self._fetching is None or _has_failed(self._fetching):
            self._fetching = asyncio.get_running_loop().create_task(self._fetch_past())
        await asyncio.shield(self._fetching)

    async def _fetch_past(self) -> None:
        past = History(EmptyEventStore(), self._memory)
        async for change in self._past.changes():
            if past.revision + 1 != change.revision:
                past = History(EmptyEventStore(), self._memory)
            past.add(change)
        if past.revision == self._first - 1:
            self._changes.extendleft(reversed(past.recent()))
            self._bytes = sum(change.weight for change in self._changes)
            self._drop()


def _has_failed(task: asyncio.Task[None]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)
