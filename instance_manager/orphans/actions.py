"""Actions: what the reconciler wants done, as values; `results` has what becomes of each."""

from dataclasses import dataclass

from instance_manager.orphans.model import ObservedInstance, Orphan
from instance_manager.orphans.verification import Verification


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
