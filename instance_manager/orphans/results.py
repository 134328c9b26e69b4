"""Results: what became of each action."""

from collections.abc import Sequence
from dataclasses import dataclass

from instance_manager.orphans import actions
from instance_manager.orphans.model import ObservedInstance, Orphan, Owner


@dataclass(frozen=True, slots=True)
class RecordsRead:
    """The open records."""

    action: actions.ListRecords
    records: Sequence[Orphan]


@dataclass(frozen=True, slots=True)
class OwnersRead:
    """All owners."""

    action: actions.ListOwners | actions.ConfirmNoOwner
    owners: Sequence[Owner]


@dataclass(frozen=True, slots=True)
class InstancesRead:
    """All instances of an instance manager."""

    action: actions.ListInstances
    instances: Sequence[ObservedInstance]


@dataclass(frozen=True, slots=True)
class InstanceRead:
    """The instance of the name, None if there is none."""

    action: actions.ReadInstance
    instance: ObservedInstance | None


@dataclass(frozen=True, slots=True)
class OwnerRead:
    """The owner of the name, None if there is none."""

    action: actions.ReadOwner
    owner: Owner | None


@dataclass(frozen=True, slots=True)
class RecordWritten:
    """The record was written or closed."""

    action: actions.WriteRecord | actions.CloseRecord


@dataclass(frozen=True, slots=True)
class InstanceDeleted:
    """The delete was accepted, or found no instance of this name and UUID."""

    action: actions.DeleteInstance
    found: bool


@dataclass(frozen=True, slots=True)
class ActionFailed:
    """The action failed, or it is unknown whether it was carried out."""

    action: actions.Action
    reason: str


CandidateResult = OwnersRead | InstanceRead | OwnerRead | RecordWritten | InstanceDeleted
Result = RecordsRead | InstancesRead | CandidateResult | ActionFailed
