"""The port pool against a naive model, and port ranges as a person writes them."""

import copy
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from instance_manager.core.errors import InvalidArgumentError, ResourceExhaustedError
from instance_manager.core.ports import MAX_PORT, PortPool, PortRange, parse_port_range


class PortPoolMachine(RuleBasedStateMachine):
    """Walks a set of ports one by one where the pool reckons with ranges."""

    @initialize(start=st.integers(1, 1000), size=st.integers(1, 30))
    def open(self, start: int, size: int) -> None:
        self.span = PortRange(start, start + size - 1)
        self.pool = PortPool.of(self.span)
        self.taken: set[int] = set()
        self.out: list[PortRange] = []
        self.cursor = start
        self.lap: set[int] = set()
        """What was handed out since the search last began anew at the start of the span."""
        self.held: set[int] = set()
        """What other programs have."""

    def find(self, count: int) -> int | None:
        """Return the first port of the run that is due, None if there is none."""
        for first in chain(range(self.cursor, self.span.end + 1), range(self.span.start, self.cursor)):
            run = range(first, first + count)
            if run[-1] <= self.span.end and (self.taken | self.held).isdisjoint(run):
                return first
        return None

    @rule(count=st.integers(1, 8) | st.integers(1, 31))
    def allocate(self, count: int) -> None:
        before, kept = self.pool, copy.deepcopy(self.pool)
        due = self.find(count)
        if due is None:
            with pytest.raises(ResourceExhaustedError, match=f"{count} consecutive ports"):
                before.allocate(count, lambda port: port not in self.held)
        else:
            self.pool, ports = before.allocate(count, lambda port: port not in self.held)
            run = set(range(ports.start, ports.end + 1))
            assert (ports.start, len(ports)) == (due, count)
            assert self.taken.isdisjoint(run)
            if due < self.cursor or self.cursor == self.span.start:
                self.lap = set()
            assert self.lap.isdisjoint(run), "handed out again before the span was walked through"
            self.lap |= run
            self.taken |= run
            self.out.append(ports)
            self.cursor = ports.end + 1 if ports.end < self.span.end else self.span.start
        assert before == kept

    @rule(data=st.data())
    def others_begin_and_end(self, data: st.DataObject) -> None:
        ports = st.sets(st.integers(self.span.start, self.span.end), max_size=8)
        self.held = data.draw(ports, "held") - self.taken

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        ports = data.draw(st.sampled_from(self.out), "ports")
        before, kept = self.pool, copy.deepcopy(self.pool)
        self.pool = before.release(ports)
        assert before == kept
        self.out.remove(ports)
        self.taken -= set(range(ports.start, ports.end + 1))

    @rule(start=st.integers(0, 1031), size=st.integers(1, 8))
    def release_what_is_not_out(self, start: int, size: int) -> None:
        ports = PortRange(start, start + size - 1)
        if ports not in self.out:
            with pytest.raises(ValueError, match="not handed out"):
                self.pool.release(ports)

    @precondition(lambda self: any(len(ports) > 1 for ports in self.out))
    @rule()
    def release_a_part(self) -> None:
        whole = next(ports for ports in self.out if len(ports) > 1)
        with pytest.raises(ValueError, match="not handed out"):
            self.pool.release(PortRange(whole.start, whole.end - 1))

    @invariant()
    def the_pool_and_the_model_agree(self) -> None:
        assert self.pool.taken == tuple(sorted(self.out))
        assert self.pool.free_count == len(self.span) - len(self.taken)

    @invariant()
    def ranges_are_inside_the_span_and_apart(self) -> None:
        edges = [self.span.start - 1]
        for ports in self.pool.taken:
            edges += ports.start, ports.end
        edges.append(self.span.end + 1)
        ends, starts = edges[::2], edges[1::2]
        assert all(end < start for end, start in zip(ends, starts, strict=True))

    def teardown(self) -> None:
        if not hasattr(self, "pool"):
            return
        for ports in self.out:
            self.pool = self.pool.release(ports)
        assert (self.pool.taken, self.pool.free_count) == ((), len(self.span))
        _, all_of_it = self.pool.allocate(len(self.span))
        assert all_of_it == self.span


TestPortPool = PortPoolMachine.TestCase


def test_a_freed_port_is_handed_out_again_only_after_all_others() -> None:
    pool = PortPool.of(PortRange(10, 19))
    seen = []
    for _ in range(20):
        pool, ports = pool.allocate(1)
        pool = pool.release(ports)
        seen.append(ports.start)
    assert seen == [*range(10, 20), *range(10, 20)]


def test_an_exhausted_pool_says_what_is_free_and_what_to_do() -> None:
    pool, _ = PortPool.of(PortRange(10, 12)).allocate(2)
    with pytest.raises(ResourceExhaustedError) as error:
        pool.allocate(2)
    assert str(error.value) == (
        "cannot allocate 2 consecutive ports out of 10-12 (1 free in all): "
        "delete processes that are no longer needed or widen --port-range"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10000-30000", PortRange(10000, 30000)),
        (" 1 - 65535 ", PortRange(1, 65535)),
        ("7-7", PortRange(7, 7)),
        ("00080-90", PortRange(80, 90)),
    ],
)
def test_a_port_range_is_read(text: str, expected: PortRange) -> None:
    assert parse_port_range(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "10000",
        "10000-",
        "-10000",
        "1-2-3",
        "1,2",
        "a-b",
        "0x1-0x2",
        "1.0-2",
        "1-99999999",
        "-1-5",
        "\u0661-\u0665",  # digits of another script
    ],
)
def test_what_is_no_port_range_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="such as 10000-20000"):
        parse_port_range(text)


@pytest.mark.parametrize("text", ["0-10", "10-9", "1-65536", "65536-70000", "0-0"])
def test_a_port_range_that_cannot_be_is_refused_with_the_bounds(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"1 <= FIRST <= LAST <= {MAX_PORT}"):
        parse_port_range(text)


@given(st.integers(-5, 70000), st.integers(-5, 70000))
def test_a_port_range_is_read_exactly_if_it_is_one(first: int, last: int) -> None:
    text = f"{first}-{last}"
    if 1 <= first <= last <= MAX_PORT:
        ports = parse_port_range(text)
        assert (ports.start, ports.end, len(ports), str(ports)) == (first, last, last - first + 1, text)
    else:
        with pytest.raises(InvalidArgumentError):
            parse_port_range(text)


def test_an_exhausted_pool_says_which_ports_other_programs_have() -> None:
    pool = PortPool.of(PortRange(10, 19))
    with pytest.raises(ResourceExhaustedError, match=r"2 consecutive .* \(5 free in all and others"):
        pool.allocate(2, lambda port: port % 2 == 0)
    with pytest.raises(ResourceExhaustedError, match=r"have 10, 11, .*, 19 and 10 more\): delete"):
        PortPool.of(PortRange(10, 29)).allocate(1, lambda _: False)


def test_a_port_is_asked_about_once_however_many_are_wanted() -> None:
    asked: list[int] = []

    def is_free(port: int) -> bool:
        asked.append(port)
        return port % 50 != 0

    with pytest.raises(ResourceExhaustedError):
        PortPool.of(PortRange(1, 1000)).allocate(50, is_free)
    assert len(asked) == len(set(asked)) <= 1000
