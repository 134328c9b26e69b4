"""What the reconciler wants done, as values; whoever carries one out tells the reconciler the answer."""

from dataclasses import dataclass

from instance_manager.core.orphans import Observed, Orphan


@dataclass(frozen=True, slots=True)
class ListRecords:
    """Read the open records. Answer: them."""


@dataclass(frozen=True, slots=True)
class ListOwners:
    """Read all owners, live. Answer: them."""

    case: str = ""
    """Record name of the instance whose missing owner is to be confirmed; empty: to know them all again."""


@dataclass(frozen=True, slots=True)
class ListInstances:
    """Ask an instance manager for all its instances. Answer: them."""

    manager: str


@dataclass(frozen=True, slots=True)
class ReadOwner:
    """Read one owner, live. Answer: it, or None."""

    case: str
    name: str


@dataclass(frozen=True, slots=True)
class ReadInstance:
    """Ask an instance manager for the instance of a name. Answer: it, or None."""

    case: str
    manager: str
    seen: Observed


@dataclass(frozen=True, slots=True)
class Write:
    """Write an open record. Answer: None."""

    case: str
    record: Orphan
    declares: bool
    """Whether an orphan is declared by it; else it tells something new about one."""


@dataclass(frozen=True, slots=True)
class Remove:
    """End a record; the instance is not touched. Answer: None."""

    case: str
    record: Orphan


@dataclass(frozen=True, slots=True)
class Delete:
    """Have exactly this instance deleted. Answer: False if there is none of this name and UUID."""

    case: str
    manager: str
    seen: Observed
    who: str
    reason: str
    """Why, in words."""


Lists = ListRecords | ListOwners | ListInstances
CaseWork = ReadOwner | ListOwners | ReadInstance | Write | Remove | Delete
Work = Lists | CaseWork


@dataclass(frozen=True, slots=True)
class Failed:
    """The answer to work that could not be done, or of which nobody knows whether it was."""

    reason: str
