"""What notifications and lists have told so far: hints which instances want a live look, never proof."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from instance_manager.app.orphans.naming import doubt, other_names
from instance_manager.core.inquiry import NO_OWNERS
from instance_manager.core.orphans import Observed, Owner, Unreadable, judge

NOT_LISTED = Unreadable("it has not answered yet")


@dataclass(slots=True)
class OwnersView:
    """The owners as they were told of last."""

    wait: float
    """Seconds after which a second look is a look of its own."""
    owners: dict[str, Owner] | None = None
    """By name, None while nothing is known."""
    trouble: Unreadable = NOT_LISTED
    """Why nothing is known."""
    empty_since: float | None = None
    """When a list was empty first, with no sign of an owner since."""
    believe_empty: bool = False
    """Whether two looks of their own have agreed that there are no owners."""

    def copy(self) -> "OwnersView":
        """Return a copy that changes independently."""
        return replace(self, owners=None if self.owners is None else dict(self.owners))

    def get(self, name: str) -> Owner | Unreadable | None:
        """Return an owner, None if there is none, and why that is not known."""
        return self.trouble if self.owners is None else self.owners.get(name)

    def list(self, owners: Iterable[Owner], now: float) -> None:
        """Take all the owners there are; none at all is believed only when it is told a second time."""
        self.owners = {owner.name: owner for owner in owners}
        self.note_count(len(self.owners), now)
        if not self.owners and not self.believe_empty:
            self.lose(NO_OWNERS)

    def note_count(self, count: int, now: float) -> None:
        """Take how many owners a live list had."""
        if count:
            self.empty_since, self.believe_empty = None, False
        elif self.empty_since is None:
            self.empty_since = now
        elif now - self.empty_since >= self.wait:
            self.believe_empty = True

    @property
    def wants_second_look(self) -> bool:
        """Whether a list was empty and has not been confirmed."""
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
    """The instances of one instance manager as they were told of last."""

    manager: str
    instances: dict[str, Observed] | None = None
    """By name, None while nothing is known."""
    trouble: Unreadable = NOT_LISTED
    """Why nothing is known."""
    left: bool = False
    """The instance manager is going away."""

    def copy(self) -> "InstancesView":
        """Return a copy that changes independently."""
        return replace(self, instances=None if self.instances is None else dict(self.instances))

    def get(self, name: str) -> Observed | Unreadable | None:
        """Return an instance, None if there is none, and why that is not known."""
        return self.trouble if self.instances is None else self.instances.get(name)

    def list(self, instances: Iterable[Observed]) -> None:
        """Take all the instances there are."""
        if self.left:
            return
        self.instances = {instance.name: instance for instance in instances}

    def change(self, name: str, instance: Observed | None) -> None:
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
        """Know nothing any more, for good."""
        self.left = True
        self.lose("the instance manager has left")

    @property
    def without_identity(self) -> int:
        """How many instances have no UUID and are never judged."""
        return sum(not instance.uuid for instance in (self.instances or {}).values())


class Views:
    """The owners, and the instances of every instance manager that is followed."""

    def __init__(self, managers: Iterable[str], wait: float) -> None:
        self.owners = OwnersView(wait)
        self.managers = {name: InstancesView(name) for name in managers}

    def suspect(self, manager: str, name: str) -> Observed | None:
        """Return an instance that looks like an orphan from here, None if none of this name does."""
        instance = self.managers[manager].get(name)
        if not isinstance(instance, Observed):
            return None
        return instance if judge(instance, self.owners.get(name), manager).is_orphan else None

    def unknown(self, manager: str, name: str) -> bool:
        """Tell whether too little is known to say what an instance of this name looks like."""
        return isinstance(self.managers[manager].get(name), Unreadable) or isinstance(
            self.owners.get(name), Unreadable
        )

    def doubt(self, manager: str) -> str:
        """Return why an instance manager is likely not the one of its name, empty if nothing says so."""
        managers = {name: view.instances for name, view in self.managers.items()}
        return doubt(manager, other_names(manager, managers, self.owners.owners or {}))
