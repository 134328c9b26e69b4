"""A wrong name of an instance manager is noticed by what the owners of its instances say."""

from collections.abc import Mapping

from instance_manager.orphans.cache import identity_warning, other_names
from instance_manager.orphans.model import ObservedInstance, Owner, OwnerKind


def running(*names: str) -> Mapping[str, ObservedInstance]:
    return {name: ObservedInstance(name, f"u-{name}", "replica", "running") for name in names}


def owners(*, state: str = "running", **managers: str) -> Mapping[str, Owner]:
    return {
        name: Owner(name, OwnerKind.REPLICA, current_state=state, instance_manager=manager)
        for name, manager in managers.items()
    }


def test_a_name_that_every_owner_replaces_by_one_other_is_likely_wrong() -> None:
    instances = {"typo": running("a", "b", "stray")}
    assert other_names("typo", instances, owners(a="real", b="real", elsewhere="third")) == {"real"}
    assert "say that they run on real; is the name right?" in identity_warning("typo", {"real"})


def test_a_name_that_one_owner_uses_is_right() -> None:
    instances = {"im": running("a", "b")}
    assert other_names("im", instances, owners(a="im", b="other")) == set()
    assert other_names("im", instances, owners(a="im", b="im")) == set()
    assert identity_warning("im", set()) == ""


def test_one_instance_that_was_left_behind_does_not_hide_a_wrong_name() -> None:
    instances = {"typo": running("a", "b", "left"), "third": running("left")}
    assert other_names("typo", instances, owners(a="real", b="real", left="third")) == {"real"}
    assert other_names("typo", {"typo": running("a", "b")}, owners(a="x", b="y")) == {"x", "y"}


def test_an_instance_that_runs_where_its_owner_says_speaks_for_no_other_name() -> None:
    assert other_names("im", {"im": running("a"), "new": running("a")}, owners(a="new")) == set()


def test_instance_managers_whose_names_were_swapped_are_both_doubted() -> None:
    swapped = {"x": running("a"), "y": running("b")}
    owned = owners(a="y", b="x")
    assert [other_names(name, swapped, owned) for name in swapped] == [{"y"}, {"x"}]
    # Nor does it help that one of them is away.
    assert other_names("x", {"x": running("a"), "y": None}, owned) == {"y"}


def test_without_running_owners_of_these_instances_nothing_is_said() -> None:
    assert other_names("im", {"im": running()}, owners(a="x")) == set()
    assert other_names("im", {"im": None}, owners(a="x")) == set()
    assert other_names("im", {"im": running("a")}, {}) == set()
    assert other_names("im", {"im": running("a")}, owners(a="x", state="stopped")) == set()
    assert other_names("im", {"im": running("a")}, owners(a="")) == set()
