"""Events: hints about what has changed, which may be late, merged, repeated or out of date."""

from collections.abc import Sequence
from dataclasses import dataclass

from instance_manager.orphans.model import ObservedInstance, Owner


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
