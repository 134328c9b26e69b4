"""Protocols of what the search for orphans depends on: owners, instance managers and records."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Protocol

from instance_manager.orphans.events import InstanceEvent, OwnerEvent
from instance_manager.orphans.model import ObservedInstance, Orphan, Owner, OwnerKind


class CannotReadError(Exception):
    """Owners, instances or records are unreachable or malformed; the message says which and why.

    It means that nothing is known, and must never be taken for the answer that there is nothing.
    """


class CannotDeleteError(Exception):
    """An instance was not deleted, or it is unknown whether it was; the message says why."""


class Owners(Protocol):
    """The custom resources that instances belong to, engines and replicas; their names are unique."""

    async def get_live(self, kind: OwnerKind, name: str) -> Owner | None:
        """Read one owner from the source of truth, past every cache; None if it certainly does not exist.

        Args:
            kind: the kind to look for; where no two kinds share a name, it may be ignored.
            name: its name.

        Raises:
            CannotReadError: if nothing certain is known.
        """

    async def list_live(self) -> Sequence[Owner]:
        """Read all owners from the source of truth, past every cache.

        Raises:
            CannotReadError: if not all of them could be read.
        """

    def watch(self) -> AsyncGenerator[OwnerEvent, None]:
        """Yield changes, starting with a list of all owners (`OwnersListed`), and a new list after any gap.

        An event is only a hint about what to check: it may be late, merged, repeated or out of date.

        Raises:
            CannotReadError: when the owners cannot be watched any more; watch again later.
        """


class InstanceManager(Protocol):
    """An instance manager."""

    @property
    def name(self) -> str:
        """The name that owners use for it (`status.instanceManagerName`)."""

    async def get_live(self, seen: ObservedInstance) -> ObservedInstance | None:
        """Return the instance that has the name, data engine and type of `seen` now; None if there is none.

        Its UUID may differ from that of `seen`.

        Raises:
            CannotReadError: if it does not answer.
        """

    async def list_live(self) -> Sequence[ObservedInstance]:
        """Return all its instances.

        Raises:
            CannotReadError: if it does not answer.
        """

    def watch(self) -> AsyncGenerator[InstanceEvent, None]:
        """Yield changes, starting with a list of all instances (`InstancesListed`), as `Owners.watch`.

        Raises:
            CannotReadError: when the instance manager is lost; watch again later.
        """

    async def delete(self, seen: ObservedInstance) -> bool:
        """Delete exactly the instance with the name *and* the UUID of `seen`.

        Returns:
            False if there is no such instance any more; another one with its name is untouched.

        Raises:
            CannotDeleteError: if the instance manager refused, or did not answer.
        """


class Records(Protocol):
    """The records of orphans. People may work on them at the same time as the agent."""

    async def list(self) -> Sequence[Orphan]:
        """Return the open records.

        Raises:
            CannotReadError: if they cannot be read.
        """

    async def get(self, name: str) -> Orphan | None:
        """Return one open record by its name.

        Raises:
            CannotReadError: if it cannot be read.
        """

    async def create(self, record: Orphan) -> None:
        """Write a new record if there is none of its name; one that is there stays as it is.

        Raises:
            CannotReadError: if it cannot be written.
        """

    async def update(self, record: Orphan) -> None:
        """Write changes of an open record; a later request to delete the instance is kept.

        If it was closed in the meantime it stays closed, and only who has deleted the instance is added.

        Raises:
            CannotReadError: if it cannot be written.
        """

    async def remove(self, record: Orphan) -> Orphan:
        """Move a closed record from the list to the history.

        Returns:
            The record as it is there, with what others have written about it meanwhile.

        Raises:
            CannotReadError: if that cannot be written.
        """

    async def request_delete(self, name: str, who: str, now: float) -> Orphan | None:
        """Record that a person wants the orphan deleted; returns the record, None if it is not open.

        Raises:
            CannotReadError: if it cannot be written.
        """

    async def report_conditions(self, conditions: Mapping[str, str]) -> None:
        """Write for people to see what keeps the agent from finding orphans: what, and why.

        Raises:
            CannotReadError: if they cannot be written.
        """

    async def report_check(self, when: float) -> None:
        """Write for people to see when the agent has last read everything that it judges by.

        Args:
            when: seconds since the epoch.

        Raises:
            CannotReadError: if it cannot be written.
        """
