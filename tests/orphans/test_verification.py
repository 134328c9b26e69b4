"""The reads that tell an orphan, and what each answer leads to."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instance_manager.orphans.model import ObservedInstance, Owner, OwnerKind, Unreadable, Verdict
from instance_manager.orphans.verification import (
    NO_OWNERS,
    Conclusion,
    Read,
    Verification,
    verify_again,
)

MANAGER = "im-1"
SEEN = ObservedInstance("v-e-0", "u1", OwnerKind.ENGINE, "running")
OTHER = Owner("w-e-0", OwnerKind.ENGINE)
OWNER = Owner("v-e-0", OwnerKind.ENGINE, False, "n", "n", "running", "running", MANAGER)
AWAY = Unreadable("no answer within 30 s")


def begun(seen: ObservedInstance = SEEN) -> Verification:
    verification = Verification("v-e-0", "u1", MANAGER).on_instance_read(seen)
    assert isinstance(verification, Verification)
    return verification


def verdict(then: Verification | Conclusion) -> Verdict:
    assert isinstance(then, Conclusion)
    return then.judgement.verdict


def at_the_last_read() -> Verification:
    verification = begun().on_owner_read(None)
    assert isinstance(verification, Verification)
    inquiry_ = verification.on_owners_read([OTHER])
    assert isinstance(inquiry_, Verification)
    return inquiry_


def test_the_process_comes_first_then_its_owner_then_the_process_again() -> None:
    verification = Verification("v-e-0", "u1", MANAGER)
    assert verification.next is Read.INSTANCE
    assert begun().next is Read.OWNER
    assert at_the_last_read().next is Read.INSTANCE
    assert verdict(at_the_last_read().on_instance_read(SEEN)) is Verdict.ORPHAN


def test_an_owner_that_is_missing_is_looked_for_among_all() -> None:
    verification = begun().on_owner_read(None)
    assert isinstance(verification, Verification)
    assert verification.next is Read.ALL_OWNERS
    assert verdict(verification.on_owners_read([OTHER, OWNER])) is Verdict.OWNED


def test_a_source_that_shows_no_owner_at_all_proves_nothing() -> None:
    verification = begun().on_owner_read(None)
    assert isinstance(verification, Verification)
    found = verification.on_owners_read([])
    assert verdict(found) is Verdict.UNKNOWN
    assert isinstance(found, Conclusion)
    assert NO_OWNERS in found.judgement.reason


def test_no_owner_at_all_is_believed_when_it_is_known_by_other_means() -> None:
    verification = replace(begun(), believe_empty=True).on_owner_read(None)
    assert isinstance(verification, Verification)
    then = verification.on_owners_read([])
    assert isinstance(then, Verification)
    assert verdict(then.on_instance_read(SEEN)) is Verdict.ORPHAN


def test_an_owner_that_is_there_ends_the_inquiry() -> None:
    assert verdict(begun().on_owner_read(OWNER)) is Verdict.OWNED


def test_an_owner_elsewhere_does_not() -> None:
    then = begun().on_owner_read(replace(OWNER, instance_manager="im-2"))
    assert isinstance(then, Verification)
    assert then.next is Read.INSTANCE
    assert verdict(then.on_instance_read(SEEN)) is Verdict.ORPHAN


@pytest.mark.parametrize("state", ["starting", "stopping", "stopped"])
def test_an_instance_that_has_begun_to_end_is_no_orphan(state: str) -> None:
    assert verdict(at_the_last_read().on_instance_read(replace(SEEN, state=state))) is Verdict.IN_TRANSITION


def test_an_instance_that_is_being_deleted_is_no_orphan_whatever_its_state() -> None:
    failed = replace(SEEN, state="error", deleting=True)
    assert verdict(at_the_last_read().on_instance_read(failed)) is Verdict.IN_TRANSITION


def test_an_instance_that_is_gone_or_has_another_uuid_is_no_orphan() -> None:
    assert verdict(at_the_last_read().on_instance_read(None)) is Verdict.IN_TRANSITION
    assert verdict(at_the_last_read().on_instance_read(replace(SEEN, uuid="u2"))) is Verdict.IN_TRANSITION


def test_what_could_not_be_read_leaves_everything_open() -> None:
    assert verdict(begun().on_owner_read(AWAY)) is Verdict.UNKNOWN
    verification = begun().on_owner_read(None)
    assert isinstance(verification, Verification)
    assert verdict(verification.on_owners_read(AWAY)) is Verdict.UNKNOWN
    assert verdict(at_the_last_read().on_instance_read(AWAY)) is Verdict.UNKNOWN


def test_an_instance_without_a_uuid_is_not_looked_into() -> None:
    nameless = replace(SEEN, uuid="")
    assert verdict(Verification("v-e-0", "", MANAGER).on_instance_read(nameless)) is Verdict.NO_IDENTITY


def test_a_second_inquiry_reads_the_owner_last() -> None:
    verification = verify_again(SEEN, MANAGER, believe_empty=False)
    assert verification.next is Read.INSTANCE
    then = verification.on_instance_read(SEEN)
    assert isinstance(then, Verification)
    assert then.next is Read.OWNER
    assert verdict(then.on_owner_read(OWNER)) is Verdict.OWNED


owners = st.none() | st.just(AWAY) | st.sampled_from([OWNER, replace(OWNER, instance_manager="im-2")])
instances = (
    st.none()
    | st.just(AWAY)
    | st.sampled_from(
        [SEEN, *(replace(SEEN, state=s) for s in ("error", "stopping", "stopped")), replace(SEEN, uuid="u2")]
    )
)
lists = st.just(AWAY) | st.lists(st.sampled_from([OTHER, OWNER]), max_size=2)


@given(instances, owners, lists, instances)
def test_an_orphan_runs_with_its_uuid_in_both_reads_and_no_owner_of_it_runs_here(
    first: ObservedInstance | Unreadable | None,
    owner: Owner | Unreadable | None,
    everyone: list[Owner] | Unreadable,
    last: ObservedInstance | Unreadable | None,
) -> None:
    then: Verification | Conclusion = Verification("v-e-0", "u1", MANAGER)
    instances_told = iter((first, last))
    while isinstance(then, Verification):
        match then.next:
            case Read.INSTANCE:
                then = then.on_instance_read(next(instances_told))
            case Read.OWNER:
                then = then.on_owner_read(owner)
            case Read.ALL_OWNERS:
                then = then.on_owners_read(everyone)
    if then.judgement.is_orphan:
        for read in (first, last):
            assert isinstance(read, ObservedInstance)
            assert read.uuid == "u1"
            assert read.state in {"running", "error"}
        elsewhere = isinstance(owner, Owner) and owner.instance_manager == "im-2"
        assert elsewhere or (owner is None and everyone and OWNER not in everyone)  # type: ignore[operator]
