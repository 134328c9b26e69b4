"""The work that the reconciler hands out, as values; each answer goes back to `Reconciler.told`."""

from dataclasses import dataclass

from instance_manager.orphans.model import ObservedInstance, Orphan


@dataclass(frozen=True, slots=True)
class ListRecords:
    """List the open records. Answer: the records."""


@dataclass(frozen=True, slots=True)
class ListOwners:
    """List all owners, live. Answer: the owners."""

    case: str = ""
    """Record name of the instance whose missing owner this list is to confirm; empty for a full check."""


@dataclass(frozen=True, slots=True)
class ListInstances:
    """List all instances of an instance manager. Answer: the instances."""

    manager: str


@dataclass(frozen=True, slots=True)
class ReadOwner:
    """Read one owner, live. Answer: the owner, or None."""

    case: str
    name: str


@dataclass(frozen=True, slots=True)
class ReadInstance:
    """Read one instance from its instance manager. Answer: the instance, or None."""

    case: str
    manager: str
    seen: ObservedInstance


@dataclass(frozen=True, slots=True)
class Write:
    """Write an open record. Answer: None."""

    case: str
    record: Orphan
    declares: bool
    """Whether this declares a new orphan, or else updates the record of a known one."""


@dataclass(frozen=True, slots=True)
class Remove:
    """Close a record and leave the instance alone. Answer: None."""

    case: str
    record: Orphan


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete exactly this instance. Answer: False if there is none with this name and UUID."""

    case: str
    manager: str
    seen: ObservedInstance
    who: str
    reason: str
    """Why, in words."""


Lists = ListRecords | ListOwners | ListInstances
CaseWork = ReadOwner | ListOwners | ReadInstance | Write | Remove | Delete
Work = Lists | CaseWork


@dataclass(frozen=True, slots=True)
class Failed:
    """The answer to work that failed, or of which it is unknown whether it was done."""

    reason: str
