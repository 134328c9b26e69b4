"""The vocabulary of the reconciler: events in, actions out, and the result of each action back in."""

from collections.abc import Sequence
from dataclasses import dataclass

from instance_manager.orphans.model import ObservedInstance, Orphan, Owner
from instance_manager.orphans.verification import Verification

# --- events: hints that may be late, merged, repeated or out of date ---


@dataclass(frozen=True, slots=True)
class OwnersListed:
    """All owners."""

    owners: Sequence[Owner]


@dataclass(frozen=True, slots=True)
class OwnerChanged:
    """One owner was created, changed or removed."""

    name: str
    owner: Owner | None
    """As it is now, None if it is gone."""


@dataclass(frozen=True, slots=True)
class OwnersLost:
    """The owners cannot be watched; nothing is known until they are listed again."""

    reason: str


@dataclass(frozen=True, slots=True)
class InstancesListed:
    """All instances on an instance manager."""

    manager: str
    instances: Sequence[ObservedInstance]


@dataclass(frozen=True, slots=True)
class InstanceChanged:
    """One instance was created, changed or deleted."""

    manager: str
    name: str
    instance: ObservedInstance | None
    """As it is now, None if it is gone."""


@dataclass(frozen=True, slots=True)
class InstanceManagerLost:
    """The instance manager cannot be watched; nothing is known until its instances are listed again."""

    manager: str
    reason: str


@dataclass(frozen=True, slots=True)
class InstanceManagerLeaving:
    """The instance manager itself is going away for good, with all its instances."""

    manager: str


OwnerEvent = OwnersListed | OwnerChanged
"""What a watch of the owners yields."""
InstanceEvent = InstancesListed | InstanceChanged | InstanceManagerLeaving
"""What a watch of an instance manager yields."""
Event = OwnerEvent | OwnersLost | InstanceEvent | InstanceManagerLost

# --- actions ---


@dataclass(frozen=True, slots=True)
class ListRecords:
    """List the open records."""


@dataclass(frozen=True, slots=True)
class ListOwners:
    """List all owners, live, for a full check."""


@dataclass(frozen=True, slots=True)
class ListInstances:
    """List all instances of an instance manager."""

    manager: str


@dataclass(frozen=True, slots=True)
class ReadInstance:
    """Read one instance from its instance manager."""

    candidate: str
    seen: ObservedInstance
    """The instance as it was last known."""
    verification: Verification
    """Continues with the result."""


@dataclass(frozen=True, slots=True)
class ReadOwner:
    """Read one owner, live."""

    candidate: str
    seen: ObservedInstance
    """The instance; its owner has the same name."""
    verification: Verification


@dataclass(frozen=True, slots=True)
class ConfirmNoOwner:
    """List all owners, live, to confirm that one is missing."""

    candidate: str
    verification: Verification


@dataclass(frozen=True, slots=True)
class WriteRecord:
    """Write an open record."""

    record: Orphan
    declares: bool
    """Whether this declares a new orphan, or else updates the record of a known one."""


@dataclass(frozen=True, slots=True)
class CloseRecord:
    """Close a record and leave the instance alone."""

    record: Orphan


@dataclass(frozen=True, slots=True)
class DeleteInstance:
    """Delete exactly the instance of a record."""

    record: Orphan
    requester: str
    reason: str


ListAction = ListRecords | ListOwners | ListInstances
CandidateAction = ReadInstance | ReadOwner | ConfirmNoOwner | WriteRecord | CloseRecord | DeleteInstance
Action = ListAction | CandidateAction

# --- results ---


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
