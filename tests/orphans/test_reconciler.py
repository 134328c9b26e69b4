"""What the reconciler makes of results that come late, and of events that come while it waits for them."""

from dataclasses import replace
from typing import TypeVar

from instance_manager.orphans.actions import (
    Action,
    CloseRecord,
    ConfirmNoOwner,
    DeleteInstance,
    ListOwners,
    ListRecords,
    ReadInstance,
    ReadOwner,
    WriteRecord,
)
from instance_manager.orphans.events import (
    InstanceChanged,
    InstanceManagerLeaving,
    InstancesListed,
    OwnerChanged,
    OwnersListed,
    OwnersLost,
)
from instance_manager.orphans.reconciler import Reconciler
from instance_manager.orphans.results import (
    InstanceRead,
    OwnerRead,
    OwnersRead,
    RecordsRead,
    RecordWritten,
    Result,
)
from instance_manager.orphans.settings import OrphanSettings
from tests.orphans.world import MANAGER, NEIGHBOUR, instance, owner

SEEN = instance("a-e-0")
SETTINGS = OrphanSettings(confirm_delay=10.0, poll_interval=2.0)
Item = TypeVar("Item", bound=Action)


class Driver:
    """A reconciler that knows of one suspect, and its actions without a result."""

    def __init__(self, settings: OrphanSettings = SETTINGS) -> None:
        self.real = Reconciler(settings, [MANAGER])
        self.real.start(0.0)
        self.pending: list[Action] = []
        self.step(0.0)
        self.result(RecordsRead(self.find(ListRecords), ()), 0.0)
        self.real.on_event(InstancesListed(MANAGER, [instance(NEIGHBOUR, "u0"), SEEN]), 0.0)
        self.real.on_event(OwnersListed([owner(NEIGHBOUR)]), 0.0)

    def step(self, now: float) -> None:
        self.pending += self.real.next_actions(now)

    def find(self, kind: type[Item]) -> Item:
        return next(action for action in self.pending if isinstance(action, kind))

    def result(self, result: Result, now: float) -> None:
        self.pending.remove(result.action)
        self.real.on_result(result, now)
        self.step(now)

    def no_owner(self, now: float) -> None:
        """Let the owner be missing, by its name and in the list of all."""
        self.result(OwnerRead(self.find(ReadOwner), None), now)
        self.result(OwnersRead(self.find(ConfirmNoOwner), (owner(NEIGHBOUR),)), now)

    def declare(self) -> WriteRecord:
        """Go on until the suspect is about to be declared an orphan."""
        self.step(10.0)
        self.no_owner(10.0)
        self.result(InstanceRead(self.find(ReadInstance), SEEN), 10.0)
        return self.find(WriteRecord)


def test_what_was_removed_while_it_was_being_read_is_suspected_again() -> None:
    driver = Driver()
    driver.step(10.0)
    # The owner is there when it is read, and gone before the answer comes.
    driver.real.on_event(OwnerChanged("a-e-0", None), 10.5)
    driver.result(OwnerRead(driver.find(ReadOwner), owner("a-e-0")), 11.0)
    assert [each.due for each in driver.real.candidates.open.values()] == [21.0]


def test_what_nothing_was_heard_of_while_it_was_being_read_is_let_go() -> None:
    driver = Driver()
    driver.step(10.0)
    driver.result(OwnerRead(driver.find(ReadOwner), owner("a-e-0")), 11.0)
    assert not driver.real.candidates.open


def test_a_record_whose_instance_ends_while_it_is_written_is_looked_at_at_once() -> None:
    driver = Driver()
    driver.declare()
    driver.real.on_event(InstanceChanged(MANAGER, "a-e-0", None), 10.5)
    driver.result(RecordWritten(driver.find(WriteRecord)), 11.0)
    driver.result(InstanceRead(driver.find(ReadInstance), None), 11.0)
    assert driver.find(CloseRecord).record.instance == SEEN


def test_a_list_of_records_that_was_asked_for_earlier_takes_nothing_back() -> None:
    driver = Driver()
    driver.declare()
    assert any(isinstance(each, ListRecords) for each in driver.pending)
    driver.result(RecordWritten(driver.find(WriteRecord)), 11.0)
    driver.result(RecordsRead(driver.find(ListRecords), ()), 12.0)
    assert [each.record is not None for each in driver.real.candidates.open.values()] == [True]


def test_a_list_of_records_that_was_asked_for_earlier_brings_nothing_back() -> None:
    driver = Driver()
    record = driver.declare().record
    driver.real.on_event(InstanceChanged(MANAGER, "a-e-0", None), 10.5)
    driver.result(RecordWritten(driver.find(WriteRecord)), 11.0)
    driver.result(InstanceRead(driver.find(ReadInstance), None), 11.0)
    driver.result(RecordWritten(driver.find(CloseRecord)), 11.0)
    driver.result(RecordsRead(driver.find(ListRecords), (record,)), 12.0)
    assert not driver.real.candidates.open


def test_a_record_that_somebody_has_removed_is_let_go() -> None:
    driver = Driver()
    driver.declare()
    driver.result(RecordWritten(driver.find(WriteRecord)), 11.0)
    driver.result(RecordsRead(driver.find(ListRecords), ()), 12.0)
    driver.step(14.0)
    driver.result(RecordsRead(driver.find(ListRecords), ()), 14.0)
    assert not driver.real.candidates.open


def test_an_order_that_comes_while_the_orphan_is_being_read_is_carried_out_next() -> None:
    driver = Driver(replace(SETTINGS, resync=100.0))
    record = driver.declare().record
    driver.result(RecordWritten(driver.find(WriteRecord)), 11.0)
    driver.result(RecordsRead(driver.find(ListRecords), (record,)), 12.0)
    driver.step(111.0)
    request = replace(record, requested_by="alice", requested_at=111.0)
    driver.result(RecordsRead(driver.find(ListRecords), (request,)), 111.0)
    driver.result(InstanceRead(driver.find(ReadInstance), SEEN), 112.0)
    driver.no_owner(112.0)
    assert driver.find(DeleteInstance).requester == "alice"


def test_an_instance_that_ends_between_the_reads_is_never_declared() -> None:
    driver = Driver()
    driver.step(10.0)
    driver.no_owner(10.0)
    driver.result(InstanceRead(driver.find(ReadInstance), replace(SEEN, state="stopping")), 10.0)
    assert not any(isinstance(each, WriteRecord) for each in driver.pending)
    assert not driver.real.candidates.open


def test_more_suspects_than_allowed_that_show_during_the_reads_are_noticed_after_them() -> None:
    driver = Driver(replace(SETTINGS, max_per_minute=1))
    driver.real.on_event(InstanceChanged(MANAGER, "b-e-0", instance("b-e-0", "u2")), 5.0)
    driver.step(10.0)
    driver.no_owner(10.0)
    driver.step(15.0)  # the other one has waited long enough
    driver.result(InstanceRead(driver.find(ReadInstance), SEEN), 15.0)
    assert driver.real.candidates.breaker.tripped
    assert not any(isinstance(each, WriteRecord) for each in driver.pending)


def test_nothing_is_declared_on_an_instance_manager_that_has_left_during_the_reads() -> None:
    driver = Driver()
    driver.step(10.0)
    driver.no_owner(10.0)
    driver.real.on_event(InstanceManagerLeaving(MANAGER), 10.5)
    driver.result(InstanceRead(driver.find(ReadInstance), SEEN), 11.0)
    assert not any(isinstance(each, WriteRecord) for each in driver.pending)
    assert not driver.real.candidates.open


def test_a_list_that_comes_late_brings_no_instance_manager_back() -> None:
    driver = Driver()
    driver.real.on_event(InstanceManagerLeaving(MANAGER), 5.0)
    driver.real.on_event(InstancesListed(MANAGER, [SEEN]), 6.0)
    assert driver.real.caches.managers[MANAGER].items is None
    driver.step(20.0)
    assert not driver.real.candidates.open


def test_owners_are_listed_soon_after_their_watch_was_lost() -> None:
    driver = Driver()
    driver.step(10.0)
    driver.result(OwnersRead(driver.find(ListOwners), (owner(NEIGHBOUR),)), 10.0)
    driver.real.on_event(OwnersLost("cut off"), 20.0)
    driver.step(20.0 + SETTINGS.retry)
    assert any(isinstance(each, ListOwners) for each in driver.pending)
