"""Is an instance manager called by the name that owners know it by?"""

from collections.abc import Iterable

from instance_manager.core.orphans import Observed, Owner
from instance_manager.core.process import State


def other_name(name: str, instances: Iterable[Observed], owners: Iterable[Owner]) -> str:
    """Return the name that all the owners of some instances use for their instance manager.

    Args:
        name: that a person has given it.
        instances: that it runs.
        owners: all there are.

    Returns:
        Empty if they use the given name, or not one other for all, or if there are no such owners.
    """
    running = {owner.name: owner for owner in owners if owner.current_state == State.RUNNING}
    told = {running[each.name].instance_manager for each in instances if each.name in running}
    return told.pop() if len(told) == 1 and name not in told else ""
