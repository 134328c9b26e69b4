"""The judgement of one instance, exhaustively, and the record of an orphan."""

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instance_manager.core.instance import DataEngine
from instance_manager.orphans.model import (
    AUTO_DELETION,
    ObservedInstance,
    Orphan,
    Owner,
    OwnerKind,
    Resolution,
    Unreadable,
    Verdict,
    deletion_requester,
    judge,
    record_name,
    review,
)

HERE, ELSEWHERE = "im-here", "im-elsewhere"
AWAY = Unreadable("no route to host")
STATES = ("starting", "running", "stopping", "stopped", "error", "unknown", "")
INSTANCE = ObservedInstance("v-e-0", "u1", OwnerKind.ENGINE, "running")
OWNER = Owner(
    "v-e-0",
    OwnerKind.ENGINE,
    node_id="n1",
    owner_id="n1",
    desired_state="running",
    current_state="running",
    instance_manager=HERE,
)


def every_instance() -> Iterator[ObservedInstance]:
    for state, uuid, engine, deleting in itertools.product(
        STATES, ("", "u1"), get_args(DataEngine), (False, True)
    ):
        yield ObservedInstance("v-e-0", uuid, OwnerKind.ENGINE, state, engine, deleting)


def every_owner() -> Iterator[Owner]:
    names = ("", "n1", "n2")
    managers = ("", HERE, ELSEWHERE)
    for deleting, node, owner_id, desired, current, manager in itertools.product(
        (False, True), names, names, STATES, STATES, managers
    ):
        yield Owner("v-e-0", OwnerKind.ENGINE, deleting, node, owner_id, desired, current, manager)


def in_transition(owner: Owner) -> bool:
    return (
        owner.deleting
        or "" in {owner.current_state, owner.owner_id}
        or owner.current_state != owner.desired_state
        or (bool(owner.node_id) and owner.node_id != owner.owner_id)
    )


def test_an_instance_that_starts_stops_or_has_stopped_is_never_an_orphan() -> None:
    for instance in every_instance():
        if instance.state not in {"running", "error"} or instance.deleting:
            for owner in (None, AWAY, OWNER, replace(OWNER, instance_manager=ELSEWHERE)):
                assert judge(instance, owner, HERE).verdict is Verdict.IN_TRANSITION


def test_an_instance_without_a_uuid_is_never_judged() -> None:
    for instance in every_instance():
        if instance.settled and not instance.uuid:
            for owner in (None, AWAY, OWNER, replace(OWNER, instance_manager=ELSEWHERE)):
                assert judge(instance, owner, HERE).verdict is Verdict.NO_IDENTITY


@pytest.mark.parametrize("state", ["running", "error"])
def test_an_owner_that_could_not_be_read_says_nothing(state: str) -> None:
    judgement = judge(replace(INSTANCE, state=state), AWAY, HERE)
    assert judgement.verdict is Verdict.UNKNOWN
    assert "no route to host" in judgement.reason


@pytest.mark.parametrize("state", ["running", "error"])
def test_an_instance_without_an_owner_is_an_orphan(state: str) -> None:
    assert judge(replace(INSTANCE, state=state), None, HERE).is_orphan


def test_every_owner_there_can_be_gives_the_verdict_of_the_table() -> None:
    for state, owner in itertools.product(("running", "error"), every_owner()):
        verdict = judge(replace(INSTANCE, state=state), owner, HERE).verdict
        if in_transition(owner):
            expected = Verdict.OWNER_IN_TRANSITION
        elif owner.current_state == "running" and owner.instance_manager == HERE:
            expected = Verdict.OWNED
        elif (
            owner.current_state == "running" and owner.instance_manager == ELSEWHERE
        ) or owner.current_state == "stopped":
            expected = Verdict.ORPHAN
        else:
            expected = Verdict.OWNER_IN_TRANSITION
        assert verdict is expected, owner


def test_every_verdict_comes_with_a_reason() -> None:
    for instance in every_instance():
        for owner in (None, AWAY, OWNER, replace(OWNER, deleting=True), replace(OWNER, owner_id="n2")):
            assert judge(instance, owner, HERE).reason


def test_an_owner_of_another_kind_proves_nothing() -> None:
    assert judge(INSTANCE, replace(OWNER, kind=OwnerKind.REPLICA), HERE).verdict is Verdict.NOT_JUDGED


@pytest.mark.parametrize("kind", ["engine-frontend", "shard", "shardgroup", ""])
def test_an_instance_of_a_type_that_has_no_owner_is_not_judged(kind: str) -> None:
    assert judge(replace(INSTANCE, kind=kind), None, HERE).verdict is Verdict.NOT_JUDGED


# --- records ---

RECORD = Orphan(INSTANCE, HERE, created=100.0, reason="the instance has no owner")


def test_a_record_is_named_after_the_hash_of_what_it_is_about() -> None:
    key = b"v-e-0-u1-im-here-v1"
    assert RECORD.name == f"orphan-{hashlib.sha256(key).hexdigest()}"
    assert RECORD.type == "engine-instance"
    assert RECORD.parameters == {
        "InstanceName": "v-e-0",
        "InstanceUUID": "u1",
        "InstanceManager": HERE,
    }


names = st.text("abc-", min_size=1, max_size=6)


@given(names, names, st.sampled_from(get_args(DataEngine)), st.sampled_from(STATES))
def test_the_state_of_an_instance_has_no_part_in_its_record_name(
    name: str, uuid: str, engine: DataEngine, state: str
) -> None:
    instance = ObservedInstance(name, uuid, OwnerKind.REPLICA, "running", engine)
    assert record_name(instance, HERE) == record_name(replace(instance, state=state), HERE)
    assert record_name(instance, HERE) != record_name(instance, ELSEWHERE)
    assert record_name(instance, HERE) != record_name(replace(instance, uuid=f"{uuid}x"), HERE)


def test_a_record_ends_when_its_instance_is_gone() -> None:
    after = review(RECORD, None, None, 200.0)
    assert (after.resolution, after.ended, after.exists) == (Resolution.GONE, 200.0, False)


def test_a_record_ends_when_its_name_has_gone_to_another_uuid() -> None:
    after = review(RECORD, replace(INSTANCE, uuid="u2"), None, 200.0)
    assert after.resolution is Resolution.REPLACED
    assert "u2" in after.outcome


def test_a_record_ends_when_the_owner_is_back_on_this_instance_manager() -> None:
    for owner in (OWNER, replace(OWNER, current_state="starting"), replace(OWNER, deleting=True)):
        assert review(RECORD, INSTANCE, owner, 200.0).resolution is Resolution.OWNED


def test_a_record_stays_while_its_owner_is_elsewhere_or_stopped_or_not_known() -> None:
    stopped = replace(OWNER, desired_state="stopped", current_state="stopped")
    for owner in (None, AWAY, replace(OWNER, instance_manager=ELSEWHERE), stopped):
        assert review(RECORD, INSTANCE, owner, 200.0) == RECORD


def test_a_record_stays_while_nobody_knows_whether_its_instance_is_there() -> None:
    for owner in (None, AWAY, OWNER):
        assert review(RECORD, AWAY, owner, 200.0) == RECORD


def test_a_record_says_who_had_its_instance_deleted() -> None:
    ordered = replace(RECORD, deleted_by="alice")
    for instance in (None, replace(INSTANCE, uuid="u2")):
        after = review(ordered, instance, None, 200.0)
        assert after.resolution is Resolution.DELETED
        assert "alice" in after.outcome
    assert review(ordered, replace(INSTANCE, state="stopping"), None, 200.0).resolution is Resolution.OPEN


def test_nobody_deletes_an_orphan_unless_asked() -> None:
    assert deletion_requester(RECORD, 1e9, auto_deletion=False, grace=0.0) == ""


def test_auto_deletion_waits_for_the_end_of_the_grace_period() -> None:
    assert deletion_requester(RECORD, 399.9, auto_deletion=True, grace=300.0) == ""
    assert deletion_requester(RECORD, 400.0, auto_deletion=True, grace=300.0) == AUTO_DELETION


def test_a_person_need_not_wait() -> None:
    asked = replace(RECORD, requested_by="alice")
    assert deletion_requester(asked, 100.0, auto_deletion=False, grace=300.0) == "alice"
