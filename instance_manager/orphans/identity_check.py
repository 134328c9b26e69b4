"""Checking that an instance manager was given the name that its owners use for it."""

from collections.abc import Mapping

from instance_manager.core.process import State
from instance_manager.orphans.model import ObservedInstance, Owner

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
    """Return a warning that owners use other names for an instance manager, empty if they do not."""
    if not others:
        return ""
    said = ", ".join(sorted(others))
    return f"the owners of all instances on {name} say that they run on {said}; is the name right?"
