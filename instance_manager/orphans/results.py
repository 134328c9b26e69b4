"""Results: what became of each action."""

from collections.abc import Sequence
from dataclasses import dataclass

from instance_manager.orphans.actions import (
    Action,
    CloseRecord,
    ConfirmNoOwner,
    DeleteInstance,
    ListInstances,
    ListOwners,
    ListRecords,
    ReadInstance,
    ReadOwner,
    WriteRecord,
)
from instance_manager.orphans.model import ObservedInstance, Orphan, Owner


@dataclass(frozen=True, slots=True)
class RecordsRead:
    """The open records."""

    action: ListRecords
    records: Sequence[Orphan]


@dataclass(frozen=True, slots=True)
class OwnersRead:
    """All owners."""

    action: ListOwners | ConfirmNoOwner
    owners: Sequence[Owner]


@dataclass(frozen=True, slots=True)
class InstancesRead:
    """All instances of an instance manager."""

    action: ListInstances
    instances: Sequence[ObservedInstance]


@dataclass(frozen=True, slots=True)
class InstanceRead:
    """The instance of the name, None if there is none."""

    action: ReadInstance
    instance: ObservedInstance | None


@dataclass(frozen=True, slots=True)
class OwnerRead:
    """The owner of the name, None if there is none."""

    action: ReadOwner
    owner: Owner | None


@dataclass(frozen=True, slots=True)
class RecordWritten:
    """The record was written or closed."""

    action: WriteRecord | CloseRecord


@dataclass(frozen=True, slots=True)
class InstanceDeleted:
    """The delete was accepted, or found no instance of this name and UUID."""

    action: DeleteInstance
    found: bool


@dataclass(frozen=True, slots=True)
class ActionFailed:
    """The action failed, or it is unknown whether it was carried out."""

    action: Action
    reason: str


CandidateResult = OwnersRead | InstanceRead | OwnerRead | RecordWritten | InstanceDeleted
Result = RecordsRead | InstancesRead | CandidateResult | ActionFailed
