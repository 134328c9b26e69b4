"""Calls are answered in turn, so that none waits long because another client asks a lot."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instance_manager.api.interceptors.fairness import MAX_QUEUED_CALLS, FairScheduler
from instance_manager.core.errors import ResourceExhaustedError
from tests.support.patience import patience

PATIENCE = patience(30.0)


async def rounds(number: int) -> None:
    """Let the event loop go round so often."""
    for _ in range(number):
        await asyncio.sleep(0)


class Calls:
    """Calls of several clients, in the order in which they are answered."""

    def __init__(self) -> None:
        self.scheduler = FairScheduler()
        self.answered: list[str] = []
        self._tasks: list[asyncio.Task[None]] = []

    def ask(self, client: str, *, times: int = 1, changes: bool = False) -> None:
        """Ask so many times at once."""

        async def one() -> None:
            self.scheduler.on_accepted()
            self.scheduler.on_arrived()
            await self.scheduler.wait(client, changes=changes)
            self.answered.append(client)

        self._tasks += [asyncio.create_task(one()) for _ in range(times)]

    @property
    def passed(self) -> int:
        """The number of calls that have had their turn, whether or not they went on yet."""
        return len(self._tasks) - self.scheduler.waiting

    async def all(self) -> list[str]:
        """Wait until every call is answered."""
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*self._tasks)
        return self.answered

    async def rest(self) -> None:
        """Wait until every call is answered or given up."""
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def asked(self) -> None:
        """Let the calls be taken, and those be answered that need not wait."""
        await rounds(2)

    async def occupied(self) -> None:
        """Let a client ask so much that calls have to wait."""
        self.ask("greedy", times=500)
        await self.asked()
        assert self.scheduler.waiting > 100

    def cancel(self, call: int) -> bool:
        """Give a call up; return whether it was not answered yet."""
        return self._tasks[call].cancel()


@pytest.mark.parametrize("changes", [False, True])
async def test_a_single_call_is_answered_at_once(changes: bool) -> None:
    calls = Calls()
    for number in range(1, 4):
        calls.ask("a", changes=changes)
        await rounds(1)
        assert calls.answered == ["a"] * number
        assert calls.scheduler.waiting == 0
        # As many as it takes to see that nobody else asks.
        await rounds(10)


async def test_reads_are_answered_one_of_each_client_in_turn() -> None:
    calls = Calls()
    calls.ask("a", times=6)
    await calls.asked()
    before = calls.passed
    calls.ask("b")
    calls.ask("c")
    # That c is accepted gives a the next turn, so c comes after the next one of a.
    assert "".join((await calls.all())[before:]) == "abaca"


async def test_a_read_waits_while_the_request_of_another_call_is_on_its_way() -> None:
    calls = Calls()
    calls.ask("first")
    await rounds(1)
    for _ in range(2):
        calls.scheduler.on_accepted()
    calls.ask("a")
    await rounds(50)
    assert calls.answered == ["first"]
    for _ in range(2):
        calls.scheduler.on_arrived()
    calls.ask("b", changes=True)
    assert await calls.all() == ["first", "b", "a"]


async def test_a_client_that_never_sends_its_request_makes_nobody_wait_long() -> None:
    calls = Calls()
    calls.scheduler.on_accepted()
    for _ in range(3):
        calls.ask("a")
    await rounds(1020)
    assert calls.answered == ["a"] * 3


async def test_clients_that_only_begin_calls_do_not_keep_a_read_waiting() -> None:
    calls = Calls()
    calls.ask("a")
    await rounds(2)
    for _ in range(4):  # each of them puts off the end of the wait
        calls.scheduler.on_accepted()
        await rounds(2)
    assert calls.answered == ["a"]


async def test_a_client_may_not_have_more_than_so_many_calls_waiting_and_others_may_go_on() -> None:
    calls = Calls()
    # Of two that arrive at once, one has its turn.
    calls.ask("greedy", times=2 * MAX_QUEUED_CALLS - 1)
    await asyncio.sleep(0)
    with pytest.raises(ResourceExhaustedError, match=f"{MAX_QUEUED_CALLS} calls of this client"):
        await calls.scheduler.wait("greedy", changes=False)
    await calls.scheduler.wait("modest", changes=False)
    await calls.all()


async def test_all_calls_of_a_crowd_are_answered() -> None:
    calls = Calls()
    for number in range(50):
        calls.ask(f"client-{number}", times=20)
        calls.ask(f"client-{number}", times=5, changes=True)
    assert Counter(await calls.all()) == {f"client-{number}": 25 for number in range(50)}
    assert calls.scheduler.waiting == 0


async def test_a_change_goes_before_the_reads_that_wait() -> None:
    calls = Calls()
    readers = [f"reader-{number}" for number in range(50)]
    for reader in readers:
        calls.ask(reader, times=10)
    await calls.asked()
    before = calls.passed
    assert calls.scheduler.waiting > 2 * len(readers)
    calls.ask("a", changes=True)
    answered = await calls.all()
    # In its turn among the clients it would come after 50 of them.
    assert answered.index("a") <= before + 1
    assert Counter(answered) == Counter({"a": 1} | dict.fromkeys(readers, 10))


async def test_a_read_does_not_wait_for_all_that_a_greedy_client_has_asked_before() -> None:
    calls = Calls()
    await calls.occupied()
    before = calls.passed
    calls.ask("modest")
    assert (await calls.all()).index("modest") <= before + 2


async def test_a_client_that_changes_a_lot_lets_the_changes_of_others_through() -> None:
    calls = Calls()
    calls.ask("greedy", times=500, changes=True)
    await calls.asked()
    before = calls.passed
    calls.ask("modest", changes=True)
    assert (await calls.all()).index("modest") <= before + 2


async def test_calls_are_answered_while_others_come_in_without_pause() -> None:
    calls = Calls()
    await calls.occupied()
    before = calls.passed
    for _ in range(100):
        calls.ask("another")
        await asyncio.sleep(0)
    assert calls.passed >= before + 40
    await calls.all()


async def test_a_call_that_was_given_up_takes_nobodys_turn() -> None:
    calls = Calls()
    await calls.occupied()
    calls.ask("gone")
    calls.ask("patient")
    await asyncio.sleep(0)
    calls.cancel(-2)
    await calls.rest()
    assert calls.answered.count("gone") == 0
    assert calls.answered.count("patient") == 1


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.booleans(), st.integers(0, 3), st.integers(0, 9)), max_size=40
    )
)
def test_whatever_comes_each_call_is_answered_once_unless_it_was_given_up(
    asked: list[tuple[str, bool, int, int]],
) -> None:
    async def run() -> None:
        calls, given_up = Calls(), 0
        for client, changes, pause, fate in asked:
            if fate == 9:
                calls.scheduler.on_accepted()
            calls.ask(client, changes=changes)
            await rounds(pause)
            given_up += fate < 3 and calls.cancel(-1)
        await calls.rest()
        assert len(calls.answered) == len(asked) - given_up
        await rounds(1020)
        assert calls.scheduler.waiting == 0

    asyncio.run(run())
