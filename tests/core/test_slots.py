"""Slots are divided: whoever holds few does not wait long for whoever holds many."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from instance_manager.core.slots import Holder, Slots

SLOTS, MOST, PATIENCE, SHORT = 4, 10, 10.0, 1.0
HOLDERS = [Holder(host, f"{host}:{port}") for host in ("a", "b", "c") for port in range(3)]


def filled(*, hosts: int = 1, connections: int, each: int, slots: int = SLOTS) -> Slots[object]:
    """Return slots that such clients have asked for, and those that there are have been given."""
    made: Slots[object] = Slots(slots, 100_000, PATIENCE, SHORT)
    for number in range(hosts * connections):
        holder = Holder(f"greedy{number % hosts}", f"greedy{number}")
        for _ in range(each):
            made.add(holder, object(), 0.0)
    while made.grant(0.0):
        continue
    return made


def waits(slots: Slots[object], newcomer: Holder) -> tuple[int, float]:
    """Return how many items are given up until a newcomer has a slot, and how long that takes."""
    item, now = object(), SHORT
    slots.add(newcomer, item, now)
    for given_up in range(1, 100_000):
        due = slots.due()
        assert due is not None
        now = max(now, due)
        slots.give_up()
        if slots.grant(now) is item:
            return given_up, now - SHORT
    raise AssertionError("never")


def test_a_newcomer_has_the_first_slot_that_a_greedy_client_gives_up() -> None:
    slots = filled(connections=4, each=100)
    assert slots.waiting == 396
    assert waits(slots, Holder("greedy0", "new")) == (1, 0)


def test_another_host_does_not_wait_for_the_connections_of_a_host_that_opens_many() -> None:
    slots = filled(connections=200, each=1)
    assert waits(slots, Holder("new", "new")) == (1, 0)


def test_a_connection_of_the_same_host_waits_for_no_more_than_one_turn_of_each() -> None:
    slots = filled(connections=200, each=50)
    given_up, seconds = waits(slots, Holder("greedy0", "new"))
    assert given_up <= 200
    assert seconds <= SHORT * 200 / SLOTS


def test_one_that_holds_the_same_as_others_has_the_longer_patience() -> None:
    slots = filled(connections=4, each=2)
    assert slots.due() == PATIENCE


def test_a_slot_does_not_move_to_and_fro_between_two_that_differ_by_one() -> None:
    slots: Slots[object] = Slots(3, MOST, PATIENCE, SHORT)
    for port in (0, 1, 0, 1):
        slots.add(HOLDERS[port], object(), 0.0)
    while slots.grant(0.0):
        continue
    assert (slots.held, slots.waiting) == (3, 1)
    assert slots.due() == PATIENCE


def test_the_greediest_goes_if_there_are_too_many() -> None:
    slots: Slots[int] = Slots(1, 3, PATIENCE, SHORT)
    modest, greedy = HOLDERS[0], HOLDERS[3]
    assert slots.add(modest, 0, 0.0) is None
    assert slots.add(greedy, 1, 0.0) is None
    assert slots.add(greedy, 2, 0.0) is None
    assert slots.add(HOLDERS[6], 3, 0.0) == 1
    assert slots.add(greedy, 4, 0.0) == 2


class Model(RuleBasedStateMachine):
    """Clients come, send their requests or not, and go."""

    def __init__(self) -> None:
        super().__init__()
        self.slots: Slots[int] = Slots(SLOTS, MOST, PATIENCE, SHORT)
        self.now = 0.0
        self.number = 0
        self.waiting: dict[int, Holder] = {}
        self.held: dict[int, Holder] = {}

    def grant(self) -> None:
        while (item := self.slots.grant(self.now)) is not None:
            holder = self.waiting.pop(item)
            shares = [self.share(other) for other in self.waiting.values()]
            assert all(self.share(holder) <= share for share in shares)
            self.held[item] = holder

    def share(self, holder: Holder) -> tuple[int, int]:
        held = list(self.held.values())
        return sum(other.host == holder.host for other in held), held.count(holder)

    @rule(holder=st.sampled_from(HOLDERS))
    def come(self, holder: Holder) -> None:
        self.number += 1
        self.waiting[self.number] = holder
        surplus = self.slots.add(holder, self.number, self.now)
        if surplus is not None:
            everybody = [*self.waiting.values(), *self.held.values()]
            greedy = self.waiting.pop(surplus, None) or self.held.pop(surplus)
            most = max(sum(each.host == host for each in everybody) for host in {h.host for h in everybody})
            assert sum(each.host == greedy.host for each in everybody) == most
        self.grant()

    @precondition(lambda self: self.held or self.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from([*self.held, *self.waiting]))
        holder = self.held.pop(item, None) or self.waiting.pop(item)
        self.slots.remove(holder, item)
        self.slots.remove(holder, item)
        self.grant()

    @rule(seconds=st.sampled_from([0.5, SHORT, PATIENCE]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        given_up = 0
        while (due := self.slots.due()) is not None and due <= self.now:
            item = self.slots.give_up()
            greedy = self.held[item]
            assert self.share(greedy) == max(map(self.share, self.held.values()))
            del self.held[item]
            self.grant()
            given_up += 1
        # Each takes the slot for at least the short patience.
        assert given_up <= SLOTS

    @invariant()
    def nothing_is_lost_and_nothing_is_over_the_bound(self) -> None:
        assert self.slots.held == len(self.held) <= SLOTS
        assert self.slots.waiting == len(self.waiting)
        assert len(self.held) + len(self.waiting) <= MOST
        assert not self.waiting or len(self.held) == SLOTS
        assert (self.slots.due() is None) == (not self.waiting)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
