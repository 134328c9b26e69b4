"""Protocols of what the search for orphans depends on: owners, instance managers and records."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from instance_manager.orphans.model import ObservedInstance, Orphan, Owner


class CannotReadError(Exception):
    """A source is unreachable, too slow, or gives a malformed answer; the message says which and why.

    It means that nothing is known, and must never be taken for the answer that there is nothing.
    """


class CannotDeleteError(Exception):
    """An instance was not deleted, or it is unknown whether it was; the message says why."""


@dataclass(frozen=True, slots=True)
class OwnersListed:
    """All owners."""

    owners: tuple[Owner, ...]


@dataclass(frozen=True, slots=True)
class OwnerChanged:
    """One owner was created, changed or removed."""

    name: str
    owner: Owner | None
    """As it is now, None if it is gone."""


OwnerNews = OwnersListed | OwnerChanged


class Owners(Protocol):
    """The custom resources that instances belong to, engines and replicas; their names are unique."""

    async def get_live(self, name: str) -> Owner | None:
        """Read one owner from the source of truth, past every cache; None if it certainly does not exist.

        Raises:
            CannotReadError: if nothing certain is known.
        """

    async def list_live(self) -> Sequence[Owner]:
        """Read all owners from the source of truth, past every cache.

        Raises:
            CannotReadError: if not all of them could be read.
        """

    def watch(self) -> AsyncGenerator[OwnerNews, None]:
        """Yield changes, starting with a list of all owners (`OwnersListed`).

        News is only a hint about what to check: it may be late, merged, repeated or out of date.

        Raises:
            CannotReadError: when the source is lost; watch again later.
        """


@dataclass(frozen=True, slots=True)
class InstancesListed:
    """All instances on an instance manager."""

    instances: tuple[ObservedInstance, ...]


@dataclass(frozen=True, slots=True)
class InstanceChanged:
    """One instance was created, changed or deleted."""

    name: str
    instance: ObservedInstance | None
    """As it is now, None if it is gone."""


@dataclass(frozen=True, slots=True)
class ManagerLeaving:
    """The instance manager itself is going away for good, with all its instances."""


InstanceNews = InstancesListed | InstanceChanged | ManagerLeaving


class InstanceManagerSource(Protocol):
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

    def watch(self) -> AsyncGenerator[InstanceNews, None]:
        """Yield changes, starting with a list of all instances (`InstancesListed`); see `Owners.watch`.

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

    async def put(self, record: Orphan) -> None:
        """Write a new record; if it exists already, a requested deletion is kept.

        Raises:
            CannotReadError: if it cannot be written.
        """

    async def update(self, record: Orphan) -> None:
        """Write changes of an open record like `put`.

        If it was closed in the meantime it stays closed, and only learns who has deleted the instance.

        Raises:
            CannotReadError: if it cannot be written.
        """

    async def remove(self, record: Orphan) -> None:
        """Move a closed record from the list to the history.

        Raises:
            CannotReadError: if that cannot be written.
        """

    async def request_delete(self, name: str, who: str, now: float) -> Orphan | None:
        """Record that a person wants the orphan deleted; returns the record, None if it is not open.

        Raises:
            CannotReadError: if it cannot be written.
        """

    async def tell(self, troubles: Mapping[str, str]) -> None:
        """Write down for people what is wrong with the search itself: what, and why.

        Raises:
            CannotReadError: if it cannot be written.
        """
