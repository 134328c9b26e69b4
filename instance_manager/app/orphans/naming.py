"""Checking that an instance manager was given the name that its owners use for it."""

from collections.abc import Iterable

from instance_manager.core.orphans import Observed, Owner
from instance_manager.core.process import State


def other_name(name: str, instances: Iterable[Observed], owners: Iterable[Owner]) -> str:
    """Return the other name that all owners of an instance manager's instances use for it.

    Args:
        name: the name it was given.
        instances: all its instances.
        owners: all owners.

    Returns:
        Empty if they use the given name or several names, or if there are no such owners.
    """
    running = {owner.name: owner for owner in owners if owner.current_state == State.RUNNING}
    told = {running[each.name].instance_manager for each in instances if each.name in running}
    return told.pop() if len(told) == 1 and name not in told else ""
