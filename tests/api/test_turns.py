"""Calls are answered in turn, so that none waits long because another client asks a lot."""

import asyncio
from collections import Counter

import pytest

from instance_manager.api.turns import MAX_WAITING_BYTES, Turns
from instance_manager.core.errors import ResourceExhaustedError

PATIENCE = 30.0


class Calls:
    """Calls of several clients, in the order in which they are answered."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.answered: list[str] = []
        self._tasks: list[asyncio.Task[None]] = []

    def ask(self, client: str, *, times: int = 1, change: bool = False, size: int = 0) -> None:
        """Ask so many times at once."""

        async def one() -> None:
            await self.turns.wait(client, change=change, size=size)
            self.answered.append(client)

        self._tasks += [asyncio.create_task(one()) for _ in range(times)]

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
        for _ in range(2):
            await asyncio.sleep(0)

    async def occupied(self) -> None:
        """Let a client ask so much that calls have to wait."""
        self.ask("greedy", times=500)
        await self.asked()
        assert self.turns.waiting > 100

    def cancel(self, client: int) -> None:
        self._tasks[client].cancel()


async def test_a_single_call_is_answered_at_once() -> None:
    calls = Calls()
    calls.ask("a")
    await asyncio.sleep(0)
    assert calls.answered == ["a"]


async def test_all_calls_of_a_crowd_are_answered() -> None:
    calls = Calls()
    for number in range(50):
        calls.ask(f"client-{number}", times=20)
        calls.ask(f"client-{number}", times=5, change=True)
    assert Counter(await calls.all()) == {f"client-{number}": 25 for number in range(50)}
    assert calls.turns.waiting == 0


async def test_a_change_goes_before_the_reads_that_wait() -> None:
    calls = Calls()
    await calls.occupied()
    before = len(calls.answered)
    calls.ask("a", change=True)
    assert (await calls.all()).index("a") <= before + 1


async def test_a_read_does_not_wait_for_all_that_a_greedy_client_has_asked_before() -> None:
    calls = Calls()
    await calls.occupied()
    before = len(calls.answered)
    calls.ask("modest")
    assert (await calls.all()).index("modest") <= before + 2


async def test_a_client_that_changes_a_lot_lets_the_changes_of_others_through() -> None:
    calls = Calls()
    calls.ask("greedy", times=500, change=True)
    await calls.asked()
    before = len(calls.answered)
    calls.ask("modest", change=True)
    assert (await calls.all()).index("modest") <= before + 2


async def test_calls_are_answered_while_others_come_in_without_pause() -> None:
    calls = Calls()
    await calls.occupied()
    before = len(calls.answered)
    for _ in range(100):
        calls.ask("another")
        await asyncio.sleep(0)
    assert len(calls.answered) >= before + 40
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


async def test_requests_that_wait_may_not_take_more_than_so_much_memory() -> None:
    calls = Calls()
    await calls.occupied()
    calls.ask("big", size=MAX_WAITING_BYTES)
    await asyncio.sleep(0)
    with pytest.raises(ResourceExhaustedError, match=f"{MAX_WAITING_BYTES} is the most"):
        await calls.turns.wait("another", change=False, size=1)
    await calls.all()
    await calls.turns.wait("another", change=False, size=MAX_WAITING_BYTES)
