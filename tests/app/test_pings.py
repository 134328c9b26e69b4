"""Pings: one for all that a watcher has not looked at yet."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from instance_manager.app.broadcast import Pings, Subscription


@pytest.fixture
def pings() -> Pings:
    return Pings()


def reading(subscription: Subscription[None]) -> asyncio.Task[None]:
    async def read(stream: AsyncIterator[None]) -> None:
        await anext(stream)

    return asyncio.create_task(read(aiter(subscription)))


async def test_a_watcher_is_pinged_once_for_all_that_it_has_not_read(pings: Pings) -> None:
    with pings.subscribe() as subscription:
        stream = aiter(subscription)
        for _ in range(3):
            pings.ping()
        await anext(stream)
        assert pings.overflows == 2
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        assert not waiting.done(), "nothing has happened since"
        pings.ping()
        await waiting


async def test_one_who_does_not_read_keeps_nobody_waiting(pings: Pings) -> None:
    with pings.subscribe(), pings.subscribe() as other:
        stream = aiter(other)
        for _ in range(1000):
            pings.ping()
            await anext(stream)
    assert pings.subscribers == 0


async def test_the_end_comes_after_a_last_ping(pings: Pings) -> None:
    subscription = pings.subscribe()
    pings.ping()
    pings.close()
    assert [ping async for ping in subscription] == [None]


async def test_who_waits_when_it_ends_is_told_so(pings: Pings) -> None:
    subscription = pings.subscribe()
    waiting = reading(subscription)
    await asyncio.sleep(0)
    pings.close()
    await waiting
    assert [ping async for ping in pings.subscribe()] == [None]
