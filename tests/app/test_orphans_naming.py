"""A wrong name of an instance manager is noticed by what the owners of its instances say."""

from instance_manager.app.orphans.naming import other_name
from instance_manager.core.orphans import Kind, Observed, Owner


def instance(name: str) -> Observed:
    return Observed(name, f"u-{name}", "replica", "running")


def owner(name: str, manager: str, state: str = "running") -> Owner:
    return Owner(name, Kind.REPLICA, current_state=state, instance_manager=manager)


def test_a_name_that_every_owner_replaces_by_one_other_is_likely_wrong() -> None:
    instances = [instance("a"), instance("b"), instance("stray")]
    owners = [owner("a", "real"), owner("b", "real"), owner("elsewhere", "third")]
    assert other_name("typo", instances, owners) == "real"


def test_a_name_that_one_owner_uses_is_right() -> None:
    instances = [instance("a"), instance("b")]
    assert other_name("im", instances, [owner("a", "im"), owner("b", "other")]) == ""
    assert other_name("im", instances, [owner("a", "im"), owner("b", "im")]) == ""


def test_owners_that_have_moved_to_different_places_say_nothing() -> None:
    assert other_name("im", [instance("a"), instance("b")], [owner("a", "x"), owner("b", "y")]) == ""


def test_without_running_owners_of_these_instances_nothing_is_said() -> None:
    assert other_name("im", [], [owner("a", "x")]) == ""
    assert other_name("im", [instance("a")], []) == ""
    assert other_name("im", [instance("a")], [owner("a", "x", "stopped"), owner("b", "x")]) == ""
