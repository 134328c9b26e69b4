"""What finding orphans needs of the outside world: owners, instance managers, and a place for records."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from instance_manager.core.orphans import Observed, Orphan, Owner


class CannotReadError(Exception):
    """A source is away, too slow, or says what cannot be true; the message says which and why.

    It means that nothing is known. It must never be taken for an answer that there is nothing.
    """


class CannotDeleteError(Exception):
    """An instance could not be deleted, or nobody knows whether it was; the message says why."""


@dataclass(frozen=True, slots=True)
class OwnersListed:
    """All owners there are."""

    owners: tuple[Owner, ...]


@dataclass(frozen=True, slots=True)
class OwnerChanged:
    """One owner was made, changed or removed."""

    name: str
    owner: Owner | None
    """As it is now, None if it is gone."""


OwnerNews = OwnersListed | OwnerChanged


class Owners(Protocol):
    """The custom resources that instances exist for, engines and replicas alike; their names are unique."""

    async def get_live(self, name: str) -> Owner | None:
        """Read one owner from the source of truth, past every cache; None: it certainly does not exist.

        Raises:
            CannotReadError: if that is not certain.
        """

    async def list_live(self) -> Sequence[Owner]:
        """Read all owners from the source of truth, past every cache.

        Raises:
            CannotReadError: if they could not be read, all of them.
        """

    def watch(self) -> AsyncGenerator[OwnerNews, None]:
        """Tell what changes, beginning with everything there is (`OwnersListed`).

        What it tells is a hint that something wants a look: it may be late, merged, repeated or out of date.

        Raises:
            CannotReadError: when the source is lost; watch again later.
        """


@dataclass(frozen=True, slots=True)
class InstancesListed:
    """All instances there are on an instance manager."""

    instances: tuple[Observed, ...]


@dataclass(frozen=True, slots=True)
class InstanceChanged:
    """One instance was created, changed or deleted."""

    name: str
    instance: Observed | None
    """As it is now, None if it is gone."""


@dataclass(frozen=True, slots=True)
class ManagerLeaving:
    """The instance manager itself is going away for good, with all it runs."""


InstanceNews = InstancesListed | InstanceChanged | ManagerLeaving


class InstanceManagerSource(Protocol):
    """One instance manager that is followed."""

    @property
    def name(self) -> str:
        """The name by which owners know it (`status.instanceManagerName`)."""

    async def get_live(self, seen: Observed) -> Observed | None:
        """Ask the instance manager for the instance that has this name, data engine and type now.

        The UUID of the answer may be another than that of the one that was seen. None: there is none.

        Raises:
            CannotReadError: if it does not answer.
        """

    async def list_live(self) -> Sequence[Observed]:
        """Ask the instance manager for all its instances.

        Raises:
            CannotReadError: if it does not answer.
        """

    def watch(self) -> AsyncGenerator[InstanceNews, None]:
        """Tell what changes, beginning with everything there is (`InstancesListed`); see `Owners.watch`.

        Raises:
            CannotReadError: when the instance manager is lost; watch again later.
        """

    async def delete(self, seen: Observed) -> bool:
        """Ask for the deletion of exactly the instance with this name *and* this UUID.

        Returns:
            False if there is no such instance any more; whatever has the name is untouched.

        Raises:
            CannotDeleteError: if the instance manager did not take the order, or did not answer.
        """


class Records(Protocol):
    """Where the records of orphans are kept. A person may work on them beside the agent."""

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
        """Write a new record; if there is one already, what a person has asked for is kept.

        Raises:
            CannotReadError: if it cannot be written.
        """

    async def update(self, record: Orphan) -> None:
        """Write what is new about an open record, as `put`; nothing if it has ended meanwhile.

        Raises:
            CannotReadError: if it cannot be written.
        """

    async def remove(self, record: Orphan) -> None:
        """End a record: it is no longer listed. The record says what became of it, for a history.

        Raises:
            CannotReadError: if that cannot be written.
        """

    async def request_delete(self, name: str, who: str, now: float) -> Orphan | None:
        """Note that a person wants the orphan of an open record deleted; None if there is no such record.

        Raises:
            CannotReadError: if it cannot be written.
        """

    async def tell(self, troubles: Mapping[str, str]) -> None:
        """Write down for people what is wrong with the search itself: what, and why.

        Raises:
            CannotReadError: if it cannot be written.
        """
