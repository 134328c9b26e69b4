"""What the reconciler makes of answers that come late, and of news that comes while it waits for them."""

from dataclasses import replace
from typing import TypeVar

from instance_manager.orphans.actions import (
    Delete,
    ListOwners,
    ListRecords,
    ReadInstance,
    ReadOwner,
    Remove,
    Work,
    Write,
)
from instance_manager.orphans.reconciler import Reconciler
from instance_manager.orphans.settings import OrphanSettings
from tests.orphans.world import MANAGER, NEIGHBOUR, instance, owner

SEEN = instance("a-e-0")
SETTINGS = OrphanSettings(wait=10.0, poll=2.0)
Item = TypeVar("Item", bound=Work)


class Desk:
    """A reconciler that has been told of one suspect, and what it has asked for."""

    def __init__(self, settings: OrphanSettings = SETTINGS) -> None:
        self.real = Reconciler(settings, [MANAGER])
        self.real.start(0.0)
        self.asked: list[Work] = []
        self.look(0.0)
        self.tell(ListRecords, (), 0.0)
        self.real.instances_listed(MANAGER, [instance(NEIGHBOUR, "u0"), SEEN], 0.0)
        self.real.owners_listed([owner(NEIGHBOUR)], 0.0)

    def look(self, now: float) -> None:
        self.asked += self.real.take(now)

    def asked_for(self, kind: type[Item]) -> Item:
        return next(work for work in self.asked if isinstance(work, kind) and getattr(work, "case", True))

    def tell(self, kind: type[Work], answer: object, now: float) -> None:
        work = self.asked_for(kind)
        self.asked.remove(work)
        self.real.told(work, answer, now)
        self.look(now)

    def declare(self) -> Write:
        """Go on until the suspect is about to be declared an orphan."""
        self.look(10.0)
        self.tell(ReadOwner, None, 10.0)
        self.tell(ListOwners, (owner(NEIGHBOUR),), 10.0)
        self.tell(ReadInstance, SEEN, 10.0)
        return self.asked_for(Write)


def test_what_was_removed_while_it_was_being_read_is_suspected_again() -> None:
    desk = Desk()
    desk.look(10.0)
    # The owner is there when it is read, and gone before the answer comes.
    desk.real.owner_changed("a-e-0", None, 10.5)
    desk.tell(ReadOwner, owner("a-e-0"), 11.0)
    assert [case.due for case in desk.real.cases.open.values()] == [21.0]


def test_what_nothing_was_heard_of_while_it_was_being_read_is_let_go() -> None:
    desk = Desk()
    desk.look(10.0)
    desk.tell(ReadOwner, owner("a-e-0"), 11.0)
    assert not desk.real.cases.open


def test_a_record_whose_instance_ends_while_it_is_written_is_looked_at_at_once() -> None:
    desk = Desk()
    desk.declare()
    desk.real.instance_changed(MANAGER, "a-e-0", None, 10.5)
    desk.tell(Write, None, 11.0)
    desk.tell(ReadInstance, None, 11.0)
    assert desk.asked_for(Remove).record.instance == SEEN


def test_a_list_of_records_that_was_asked_for_earlier_takes_nothing_back() -> None:
    desk = Desk()
    desk.declare()
    assert any(isinstance(work, ListRecords) for work in desk.asked)
    desk.tell(Write, None, 11.0)
    desk.tell(ListRecords, (), 12.0)
    assert [case.record is not None for case in desk.real.cases.open.values()] == [True]


def test_a_list_of_records_that_was_asked_for_earlier_brings_nothing_back() -> None:
    desk = Desk()
    record = desk.declare().record
    desk.real.instance_changed(MANAGER, "a-e-0", None, 10.5)
    desk.tell(Write, None, 11.0)
    desk.tell(ReadInstance, None, 11.0)
    desk.tell(Remove, None, 11.0)
    desk.tell(ListRecords, (record,), 12.0)
    assert not desk.real.cases.open


def test_a_record_that_somebody_has_removed_is_let_go() -> None:
    desk = Desk()
    desk.declare()
    desk.tell(Write, None, 11.0)
    desk.tell(ListRecords, (), 12.0)
    desk.look(14.0)
    desk.tell(ListRecords, (), 14.0)
    assert not desk.real.cases.open


def test_an_order_that_comes_while_the_orphan_is_being_read_is_carried_out_next() -> None:
    desk = Desk(replace(SETTINGS, resync=100.0))
    record = desk.declare().record
    desk.tell(Write, None, 11.0)
    desk.tell(ListRecords, (record,), 12.0)
    desk.look(111.0)
    asked = replace(record, requested_by="alice", requested_at=111.0)
    desk.tell(ListRecords, (asked,), 111.0)
    desk.tell(ReadInstance, SEEN, 112.0)
    desk.tell(ReadOwner, None, 112.0)
    work = next(w for w in desk.asked if isinstance(w, ListOwners) and w.case)
    desk.asked.remove(work)
    desk.real.told(work, (owner(NEIGHBOUR),), 112.0)
    desk.look(112.0)
    assert desk.asked_for(Delete).who == "alice"


def test_an_instance_that_ends_between_the_reads_is_never_declared() -> None:
    desk = Desk()
    desk.look(10.0)
    desk.tell(ReadOwner, None, 10.0)
    desk.tell(ListOwners, (owner(NEIGHBOUR),), 10.0)
    desk.tell(ReadInstance, replace(SEEN, state="stopping"), 10.0)
    assert not any(isinstance(work, Write) for work in desk.asked)
    assert not desk.real.cases.open
