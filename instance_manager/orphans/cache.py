"""Owners and instances by the latest news: hints about which instances to read live, never proof."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from instance_manager.orphans.identity_check import doubt, other_names
from instance_manager.orphans.model import ObservedInstance, Owner, Unreadable, judge
from instance_manager.orphans.verification import NO_OWNERS

NOT_LISTED = Unreadable("it has not answered yet")


@dataclass(slots=True)
class OwnersView:
    """The owners by the latest news."""

    wait: float
    """Seconds after which a second empty list confirms the first."""
    owners: dict[str, Owner] | None = None
    """By name; None while they are unknown."""
    trouble: Unreadable = NOT_LISTED
    """Why they are unknown."""
    empty_since: float | None = None
    """When a list was first empty, without any sign of an owner since; in seconds since the epoch."""
    believe_empty: bool = False
    """Whether a second empty list has confirmed that there are no owners."""

    def copy(self) -> "OwnersView":
        """Return a copy that changes independently."""
        return replace(self, owners=None if self.owners is None else dict(self.owners))

    def get(self, name: str) -> Owner | Unreadable | None:
        """Return an owner, None if there is none, or why that is unknown."""
        return self.trouble if self.owners is None else self.owners.get(name)

    def list(self, owners: Iterable[Owner], now: float) -> None:
        """Take a list of all owners; an empty one is believed only if a second one confirms it."""
        self.owners = {owner.name: owner for owner in owners}
        self.note_count(len(self.owners), now)
        if not self.owners and not self.believe_empty:
            self.lose(NO_OWNERS)

    def note_count(self, count: int, now: float) -> None:
        """Take the number of owners in a live list."""
        if count:
            self.empty_since, self.believe_empty = None, False
        elif self.empty_since is None:
            self.empty_since = now
        elif now - self.empty_since >= self.wait:
            self.believe_empty = True

    @property
    def wants_second_look(self) -> bool:
        """Whether an empty list has not been confirmed yet."""
        return self.empty_since is not None and not self.believe_empty

    def change(self, name: str, owner: Owner | None) -> None:
        """Take the change of one owner, once all have been listed."""
        if self.owners is None:
            return
        if owner is None:
            self.owners.pop(name, None)
        else:
            self.owners[name] = owner
            self.empty_since, self.believe_empty = None, False

    def lose(self, reason: str) -> None:
        """Know nothing any more."""
        self.owners, self.trouble = None, Unreadable(reason)


@dataclass(slots=True)
class InstancesView:
    """The instances of one instance manager by the latest news."""

    manager: str
    instances: dict[str, ObservedInstance] | None = None
    """By name; None while they are unknown."""
    trouble: Unreadable = NOT_LISTED
    """Why they are unknown."""
    left: bool = False
    """Whether the instance manager is going away."""

    def copy(self) -> "InstancesView":
        """Return a copy that changes independently."""
        return replace(self, instances=None if self.instances is None else dict(self.instances))

    def get(self, name: str) -> ObservedInstance | Unreadable | None:
        """Return an instance, None if there is none, or why that is unknown."""
        return self.trouble if self.instances is None else self.instances.get(name)

    def list(self, instances: Iterable[ObservedInstance]) -> None:
        """Take a list of all instances."""
        if self.left:
            return
        self.instances = {instance.name: instance for instance in instances}

    def change(self, name: str, instance: ObservedInstance | None) -> None:
        """Take the change of one instance, once all have been listed."""
        if self.instances is None:
            return
        if instance is None:
            self.instances.pop(name, None)
        else:
            self.instances[name] = instance

    def lose(self, reason: str) -> None:
        """Know nothing any more."""
        self.instances, self.trouble = None, Unreadable(reason)

    def leave(self) -> None:
        """Forget everything for good: the instance manager is going away."""
        self.left = True
        self.lose("the instance manager has left")

    @property
    def without_identity(self) -> int:
        """How many instances have no UUID and are never judged."""
        return sum(not instance.uuid for instance in (self.instances or {}).values())


class Views:
    """The views of the owners and of each instance manager."""

    def __init__(self, managers: Iterable[str], wait: float) -> None:
        self.owners = OwnersView(wait)
        self.managers = {name: InstancesView(name) for name in managers}

    def suspect(self, manager: str, name: str) -> ObservedInstance | None:
        """Return the instance of this name if it looks like an orphan by the views, else None."""
        instance = self.managers[manager].get(name)
        if not isinstance(instance, ObservedInstance):
            return None
        return instance if judge(instance, self.owners.get(name), manager).is_orphan else None

    def unknown(self, manager: str, name: str) -> bool:
        """Return whether the views are not enough to say if an instance of this name looks like an orphan."""
        return isinstance(self.managers[manager].get(name), Unreadable) or isinstance(
            self.owners.get(name), Unreadable
        )

    def doubt(self, manager: str) -> str:
        """Return why an instance manager is likely not the one of its name, empty if nothing says so."""
        managers = {name: view.instances for name, view in self.managers.items()}
        return doubt(manager, other_names(manager, managers, self.owners.owners or {}))
