"""In-memory owners, instance managers and records: a test decides what is there, and what can be read."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Generic, TypeVar

from instance_manager.core.process import State
from instance_manager.orphans.events import (
    InstanceChanged,
    InstanceEvent,
    InstanceManagerLeaving,
    InstancesListed,
    OwnerChanged,
    OwnerEvent,
    OwnersListed,
)
from instance_manager.orphans.interfaces import CannotDeleteError, CannotReadError
from instance_manager.orphans.model import ObservedInstance, Orphan, Owner, OwnerKind, Resolution

Item = TypeVar("Item")


class _Feed(Generic[Item]):
    """Gives every watcher what is posted."""

    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[Item | CannotReadError]] = set()

    def post(self, item: Item | CannotReadError) -> None:
        for queue in self._queues:
            queue.put_nowait(item)

    async def follow(self, first: Item) -> AsyncGenerator[Item, None]:
        queue: asyncio.Queue[Item | CannotReadError] = asyncio.Queue()
        queue.put_nowait(first)
        self._queues.add(queue)
        try:
            while True:
                item = await queue.get()
                if isinstance(item, CannotReadError):
                    raise item
                yield item
        finally:
            self._queues.discard(queue)


class MemoryOwners:
    """Owners that exist only here; implements `interfaces.Owners`."""

    def __init__(self, *owners: Owner) -> None:
        self.owners = {owner.name: owner for owner in owners}
        """By name; what `put` and `remove` change."""
        self.failure = ""
        """Why nothing can be read; empty while all is well."""
        self.quiet = False
        """Whether watchers get nothing, as when notifications are late."""
        self.stuck = False
        """Whether live reads are never answered."""
        self.reads = 0
        """How many live reads there were."""
        self.before_read: Callable[[], None] = lambda: None
        """Called before each live read, to change something at the last moment."""
        self._feed: _Feed[OwnerEvent] = _Feed()

    def put(self, owner: Owner) -> None:
        """Make or change an owner."""
        self.owners[owner.name] = owner
        self._notify(OwnerChanged(owner.name, owner))

    def remove(self, name: str) -> None:
        """Remove an owner; nothing if there is none."""
        self.owners.pop(name, None)
        self._notify(OwnerChanged(name, None))

    def relist(self) -> None:
        """Give watchers a list of everything."""
        self._notify(OwnersListed(tuple(self.owners.values())))

    def fail(self, reason: str) -> None:
        """Be unreadable from now on; watchers are cut off. An empty reason: be readable again."""
        self.failure = reason
        if reason:
            self._feed.post(CannotReadError(reason))

    def _notify(self, event: OwnerEvent) -> None:
        if not self.quiet:
            self._feed.post(event)

    async def _live_read(self) -> None:
        self.reads += 1
        if self.stuck:
            await asyncio.Event().wait()
        self.before_read()
        if self.failure:
            raise CannotReadError(self.failure)

    async def get_live(self, kind: OwnerKind, name: str) -> Owner | None:
        """Read one owner."""
        del kind
        await self._live_read()
        return self.owners.get(name)

    async def list_live(self) -> Sequence[Owner]:
        """Read all owners."""
        await self._live_read()
        return tuple(self.owners.values())

    async def watch(self) -> AsyncGenerator[OwnerEvent, None]:
        """Yield what `put`, `remove` and `relist` do."""
        if self.failure:
            raise CannotReadError(self.failure)
        async for event in self._feed.follow(OwnersListed(tuple(self.owners.values()))):
            yield event


class FakeManager:
    """An instance manager whose instances exist only here; implements `interfaces.InstanceManager`."""

    def __init__(self, name: str, *instances: ObservedInstance) -> None:
        self.name = name
        self.instances = {instance.name: instance for instance in instances}
        """By name."""
        self.failure = ""
        """Why it does not answer; empty while it does."""
        self.refusal = ""
        """Why it takes no order to delete; empty while it does."""
        self.unheld = asyncio.Event()
        """Orders to delete are answered once it is set, as it is unless somebody clears it."""
        self.unheld.set()
        self.quiet = False
        """Whether watchers get nothing."""
        self.asked: list[tuple[str, str]] = []
        """Name and UUID of every order to delete."""
        self.deleted: list[str] = []
        """UUID of each instance whose deletion was begun."""
        self._feed: _Feed[InstanceEvent] = _Feed()

    def put(self, instance: ObservedInstance) -> None:
        """Create or change an instance."""
        self.instances[instance.name] = instance
        self._notify(InstanceChanged(self.name, instance.name, instance))

    def end(self, name: str) -> None:
        """Let an instance leave the list; nothing if there is none."""
        self.instances.pop(name, None)
        self._notify(InstanceChanged(self.name, name, None))

    def leave(self) -> None:
        """Say that the instance manager itself goes away."""
        self._notify(InstanceManagerLeaving(self.name))

    def fail(self, reason: str) -> None:
        """Answer nothing from now on; watchers are cut off. An empty reason: answer again."""
        self.failure = reason
        if reason:
            self._feed.post(CannotReadError(reason))

    def _notify(self, event: InstanceEvent) -> None:
        if not self.quiet:
            self._feed.post(event)

    def _answer(self) -> None:
        if self.failure:
            raise CannotReadError(self.failure)

    async def get_live(self, seen: ObservedInstance) -> ObservedInstance | None:
        """Return the instance of that name."""
        self._answer()
        return self.instances.get(seen.name)

    async def list_live(self) -> Sequence[ObservedInstance]:
        """Return all instances."""
        self._answer()
        return tuple(self.instances.values())

    async def watch(self) -> AsyncGenerator[InstanceEvent, None]:
        """Yield what `put`, `end` and `leave` do."""
        self._answer()
        async for event in self._feed.follow(InstancesListed(self.name, tuple(self.instances.values()))):
            yield event

    async def delete(self, seen: ObservedInstance) -> bool:
        """Begin to stop an instance; a test ends it."""
        self.asked.append((seen.name, seen.uuid))
        await self.unheld.wait()
        if self.failure or self.refusal:
            raise CannotDeleteError(self.failure or self.refusal)
        instance = self.instances.get(seen.name)
        if instance is None or instance.uuid != seen.uuid:
            return False
        self.deleted.append(seen.uuid)
        self.put(replace(instance, state=State.STOPPING, deleting=True))
        return True


class MemoryRecords:
    """Records that are kept only here; implements `interfaces.Records`."""

    def __init__(self) -> None:
        self.open: dict[str, Orphan] = {}
        """By name."""
        self.history: list[Orphan] = []
        """Those that have ended, oldest first."""
        self.failure = ""
        """Why they cannot be read or written; empty while they can."""
        self.conditions: dict[str, str] = {}
        """What keeps the agent from finding orphans, as it has last reported."""

    def _check(self) -> None:
        if self.failure:
            raise CannotReadError(self.failure)

    async def list(self) -> Sequence[Orphan]:
        """Return the open records."""
        self._check()
        return tuple(self.open.values())

    async def get(self, name: str) -> Orphan | None:
        """Return one open record."""
        self._check()
        return self.open.get(name)

    async def create(self, record: Orphan) -> None:
        """Write a new record, unless there is one of its name."""
        self._check()
        self.open.setdefault(record.name, record)

    async def update(self, record: Orphan) -> None:
        """Write a record that is open, keeping a later request."""
        self._check()
        if record.name in self.open:
            self.open[record.name] = record.with_request_of(self.open[record.name])

    async def remove(self, record: Orphan) -> Orphan:
        """End a record."""
        self._check()
        if (known := self.open.pop(record.name, None)) is not None:
            record = record.with_request_of(known)
            if record.resolution is Resolution.GONE:
                record = record.close_as_gone(record.ended)
            self.history.append(record)
        return record

    async def request_delete(self, name: str, who: str, now: float) -> Orphan | None:
        """Note that a person wants an orphan deleted."""
        self._check()
        if name not in self.open:
            return None
        self.open[name] = replace(self.open[name], requested_by=who, requested_at=now)
        return self.open[name]

    async def report_check(self, when: float) -> None:
        """Keep when the last check was."""
        self._check()
        self.checked = when

    async def report_conditions(self, conditions: Mapping[str, str]) -> None:
        """Keep the conditions."""
        self._check()
        self.conditions = dict(conditions)
