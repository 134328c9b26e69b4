"""Is an instance manager called by the name that owners know it by?"""

from collections.abc import Mapping

from instance_manager.core.orphans import Observed, Owner
from instance_manager.core.process import State

Instances = Mapping[str, Observed] | None
"""What an instance manager runs by name, None if that is not known."""


def other_names(name: str, managers: Mapping[str, Instances], owners: Mapping[str, Owner]) -> set[str]:
    """Return what the owners of its instances call an instance manager, if not one calls it by its name.

    Under a wrong name every instance on it looks as if its owner had moved elsewhere. One that has really
    moved, to where its owner says, tells nothing about the name.

    Args:
        name: that a person has given it.
        managers: those that are followed.
        owners: all there are, by name.

    Returns:
        Empty if an owner uses the name, or nothing is known that speaks against it.
    """
    told = set()
    for each in managers[name] or ():
        owner = owners.get(each)
        if owner is None or owner.current_state != State.RUNNING or not owner.instance_manager:
            continue
        if owner.instance_manager == name:
            return set()
        if each not in (managers.get(owner.instance_manager) or ()):
            told.add(owner.instance_manager)
    return told


def doubt(name: str, others: set[str]) -> str:
    """Return in words that owners use other names for an instance manager, empty if they do not."""
    if not others:
        return ""
    said = ", ".join(sorted(others))
    return f"the owners of all instances on {name} say that they run on {said}; is the name right?"
