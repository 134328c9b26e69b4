"""Owners and instances by the latest events: hints about which instances to read live, never proof."""

from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

from instance_manager.core.process import State
from instance_manager.orphans.model import ObservedInstance, Owner, Unreadable, judge
from instance_manager.orphans.verification import NO_OWNERS

T = TypeVar("T")

NOT_LISTED = Unreadable("it has not answered yet")


class Cache(Generic[T]):
    """What a watch has shown, by name."""

    def __init__(self) -> None:
        self.items: dict[str, T] | None = None
        """By name; None while the cache is unsynced."""
        self.last_error = NOT_LISTED
        """Why it is unsynced."""

    def get(self, name: str) -> T | Unreadable | None:
        """Return an item, None if there is none, or why that is unknown."""
        return self.last_error if self.items is None else self.items.get(name)

    def change(self, name: str, item: T | None) -> None:
        """Replace or remove one item, once all have been listed."""
        if self.items is not None:
            self.items.pop(name, None)
            if item is not None:
                self.items[name] = item

    def lose(self, reason: str) -> None:
        """Mark the cache as unsynced."""
        self.items, self.last_error = None, Unreadable(reason)

    @property
    def error(self) -> str:
        """Why it is unsynced; empty if it is synced."""
        return "" if self.items is not None else self.last_error.reason


class OwnerCache(Cache[Owner]):
    """The owners by the latest events."""

    def __init__(self, confirm_delay: float) -> None:
        super().__init__()
        self._confirm_delay = confirm_delay
        """Seconds after which a second empty list confirms the first."""
        self.empty_since: float | None = None
        """When a list was first empty, without any sign of an owner since; in seconds since the epoch."""
        self.believe_empty = False
        """Whether a second empty list has confirmed that there are no owners."""

    def list(self, owners: Iterable[Owner], now: float) -> None:
        """Replace all owners; an empty list is believed only if a second one confirms it."""
        self.items = {owner.name: owner for owner in owners}
        self.note_count(len(self.items), now)
        if not self.items and not self.believe_empty:
            self.lose(NO_OWNERS)

    def note_count(self, count: int, now: float) -> None:
        """Note how many owners there are, by a live list."""
        if count:
            self.empty_since, self.believe_empty = None, False
        elif self.empty_since is None:
            self.empty_since = now
        elif now - self.empty_since >= self._confirm_delay:
            self.believe_empty = True

    @property
    def wants_second_list(self) -> bool:
        """Whether an empty list has not been confirmed yet."""
        return self.empty_since is not None and not self.believe_empty

    def change(self, name: str, item: Owner | None) -> None:
        """Replace or remove one owner, once all have been listed."""
        super().change(name, item)
        if self.items is not None and item is not None:
            self.empty_since, self.believe_empty = None, False


class InstanceCache(Cache[ObservedInstance]):
    """The instances of one instance manager by the latest events."""

    left = False
    """Whether the instance manager is going away."""

    def list(self, instances: Iterable[ObservedInstance]) -> None:
        """Replace all instances."""
        if not self.left:
            self.items = {instance.name: instance for instance in instances}

    def leave(self) -> None:
        """Drop everything for good: the instance manager is going away."""
        self.left = True
        self.lose("the instance manager has left")

    @property
    def without_identity(self) -> int:
        """How many instances have no UUID and are never judged."""
        return sum(not instance.uuid for instance in (self.items or {}).values())


class Caches:
    """The owners, and the instances of each instance manager."""

    def __init__(self, managers: Iterable[str], confirm_delay: float) -> None:
        self.owners = OwnerCache(confirm_delay)
        self.managers = {name: InstanceCache() for name in managers}

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
        managers = {name: cache.items for name, cache in self.managers.items()}
        return identity_warning(manager, other_names(manager, managers, self.owners.items or {}))


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
