"""Owners and instances by the latest events: hints about which instances to read live, never proof."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from instance_manager.core.process import State
from instance_manager.orphans.model import ObservedInstance, Owner, Unreadable, judge
from instance_manager.orphans.verification import NO_OWNERS

NOT_LISTED = Unreadable("it has not answered yet")


@dataclass(slots=True)
class OwnerCache:
    """The owners by the latest events."""

    confirm_delay: float
    """Seconds after which a second empty list confirms the first."""
    owners: dict[str, Owner] | None = None
    """By name; None while they are unknown."""
    last_error: Unreadable = NOT_LISTED
    """Why they are unknown."""
    empty_since: float | None = None
    """When a list was first empty, without any sign of an owner since; in seconds since the epoch."""
    believe_empty: bool = False
    """Whether a second empty list has confirmed that there are no owners."""

    def get(self, name: str) -> Owner | Unreadable | None:
        """Return an owner, None if there is none, or why that is unknown."""
        return self.last_error if self.owners is None else self.owners.get(name)

    def list(self, owners: Iterable[Owner], now: float) -> None:
        """Replace all owners; an empty list is believed only if a second one confirms it."""
        self.owners = {owner.name: owner for owner in owners}
        self.note_count(len(self.owners), now)
        if not self.owners and not self.believe_empty:
            self.lose(NO_OWNERS)

    def note_count(self, count: int, now: float) -> None:
        """Note how many owners a live list has shown."""
        if count:
            self.empty_since, self.believe_empty = None, False
        elif self.empty_since is None:
            self.empty_since = now
        elif now - self.empty_since >= self.confirm_delay:
            self.believe_empty = True

    @property
    def wants_second_list(self) -> bool:
        """Whether an empty list has not been confirmed yet."""
        return self.empty_since is not None and not self.believe_empty

    def change(self, name: str, owner: Owner | None) -> None:
        """Replace one owner, once all have been listed."""
        if self.owners is None:
            return
        if owner is None:
            self.owners.pop(name, None)
        else:
            self.owners[name] = owner
            self.empty_since, self.believe_empty = None, False

    def lose(self, reason: str) -> None:
        """Mark the cache as unsynced."""
        self.owners, self.last_error = None, Unreadable(reason)


@dataclass(slots=True)
class InstanceCache:
    """The instances of one instance manager by the latest events."""

    manager: str
    instances: dict[str, ObservedInstance] | None = None
    """By name; None while they are unknown."""
    last_error: Unreadable = NOT_LISTED
    """Why they are unknown."""
    left: bool = False
    """Whether the instance manager is going away."""

    def get(self, name: str) -> ObservedInstance | Unreadable | None:
        """Return an instance, None if there is none, or why that is unknown."""
        return self.last_error if self.instances is None else self.instances.get(name)

    def list(self, instances: Iterable[ObservedInstance]) -> None:
        """Replace all instances."""
        if not self.left:
            self.instances = {instance.name: instance for instance in instances}

    def change(self, name: str, instance: ObservedInstance | None) -> None:
        """Replace one instance, once all have been listed."""
        if self.instances is None:
            return
        if instance is None:
            self.instances.pop(name, None)
        else:
            self.instances[name] = instance

    def lose(self, reason: str) -> None:
        """Mark the cache as unsynced."""
        self.instances, self.last_error = None, Unreadable(reason)

    def leave(self) -> None:
        """Drop everything for good: the instance manager is going away."""
        self.left = True
        self.lose("the instance manager has left")

    @property
    def without_identity(self) -> int:
        """How many instances have no UUID and are never judged."""
        return sum(not instance.uuid for instance in (self.instances or {}).values())


class Caches:
    """The owners, and the instances of each instance manager."""

    def __init__(self, managers: Iterable[str], confirm_delay: float) -> None:
        self.owners = OwnerCache(confirm_delay)
        self.managers = {name: InstanceCache(name) for name in managers}

    def suspect(self, manager: str, name: str) -> ObservedInstance | None:
        """Return the instance of this name if it looks like an orphan by the caches, else None."""
        instance = self.managers[manager].get(name)
        if not isinstance(instance, ObservedInstance):
            return None
        return instance if judge(instance, self.owners.get(name), manager).is_orphan else None

    def unknown(self, manager: str, name: str) -> bool:
        """Return whether the caches cannot say if an instance of this name looks like an orphan."""
        return isinstance(self.managers[manager].get(name), Unreadable) or isinstance(
            self.owners.get(name), Unreadable
        )

    def identity_warning(self, manager: str) -> str:
        """Return why an instance manager is likely not the one of its name, empty if nothing says so."""
        managers = {name: cache.instances for name, cache in self.managers.items()}
        return identity_warning(manager, other_names(manager, managers, self.owners.owners or {}))


# --- identity check: was an instance manager given the name that its owners use for it? ---

Instances = Mapping[str, ObservedInstance] | None
"""The instances of an instance manager by name, None if unknown."""


def other_names(name: str, managers: Mapping[str, Instances], owners: Mapping[str, Owner]) -> set[str]:
    """Return the other names that owners use for an instance manager, if none uses its own name.

    Under a wrong name, every instance on it looks as if its owner had moved elsewhere. An instance that has
    really moved to where its owner says proves nothing about the name.

    Args:
        name: the name it was given.
        managers: the instances of all followed instance managers, by name.
        owners: all owners by name.

    Returns:
        Empty if an owner uses the name, or if nothing speaks against it.
    """
    others = set()
    for each in managers[name] or ():
        owner = owners.get(each)
        if owner is None or owner.current_state != State.RUNNING or not owner.instance_manager:
            continue
        if owner.instance_manager == name:
            return set()
        if each not in (managers.get(owner.instance_manager) or ()):
            others.add(owner.instance_manager)
    return others


def identity_warning(name: str, others: set[str]) -> str:
    """Return a warning that owners use other names for an instance manager, empty if they do not."""
    if not others:
        return ""
    shown = ", ".join(sorted(others))
    return f"the owners of all instances on {name} say that they run on {shown}; is the name right?"
