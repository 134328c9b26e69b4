"""The event log: what a subscriber is told, in which order, and what it costs not to read."""

import asyncio
import gc
import weakref
from dataclasses import replace

import pytest

from instance_manager.app import broadcast
from instance_manager.app.broadcast import LaggedError, Subscription
from instance_manager.app.events import EventLog
from instance_manager.core.change import Change
from instance_manager.core.process import Process, State
from instance_manager.core.spec import ProcessSpec
from tests.support.fakes import FakeClock

PROCESS = Process(spec=ProcessSpec(name="r", binary="/bin/r"), uuid="u")
BACKLOG = 5


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def log(clock: FakeClock) -> EventLog:
    return EventLog(clock.now, backlog=BACKLOG)


def tell(log: EventLog, process: Process, *, deleted: bool = False) -> None:
    """Tell one change of a process."""
    for change in log.prepare(process, None, [deleted]):
        log.publish(change)


async def rest(subscription: Subscription[Change]) -> list[Change]:
    """Return everything until the end of the subscription."""
    return [change async for change in subscription]


async def test_every_subscriber_is_told_every_change_in_order_without_gaps(
    log: EventLog, clock: FakeClock
) -> None:
    first, second = log.subscribe(), log.subscribe()
    told = [asyncio.create_task(rest(each)) for each in (first, second)]
    states = [State.STARTING, State.RUNNING, State.STOPPING, State.STOPPED]
    for state in states:
        tell(log, replace(PROCESS, state=state))
        clock.advance(0.5)
    tell(log, replace(PROCESS, state=State.STOPPED), deleted=True)
    log.close()
    expected = [
        Change(number, 1000.0 + (number - 1) * 0.5, replace(PROCESS, state=state), None, number == 5)
        for number, state in enumerate([*states, State.STOPPED], start=1)
    ]
    assert await asyncio.gather(*told) == [expected, expected]
    assert log.revision == 5


async def test_a_subscriber_is_told_what_happens_from_then_on(log: EventLog) -> None:
    tell(log, PROCESS)
    with log.subscribe() as late:
        tell(log, replace(PROCESS, state=State.RUNNING))
        log.close()
        assert [(c.revision, c.process.state) for c in await rest(late)] == [(2, State.RUNNING)]


async def test_a_subscriber_that_waits_is_woken_by_each_change(log: EventLog) -> None:
    with log.subscribe() as subscription:
        changes = aiter(subscription)
        for revision in (1, 2, 3):
            waiting = asyncio.ensure_future(anext(changes))
            tell(log, PROCESS)
            assert (await waiting).revision == revision


async def test_what_is_read_late_is_what_it_was_then(log: EventLog) -> None:
    process = replace(PROCESS, conditions={"Full": False})
    with log.subscribe() as subscription:
        tell(log, process)
        process = replace(process, state=State.ERROR, failure="later", conditions={"Full": True})
        tell(log, process)
        log.close()
        first, second = await rest(subscription)
    assert (first.process.state, first.process.error_msg, first.process.conditions) == (
        State.STARTING,
        "",
        {"Full": False},
    )
    assert second.process.state is State.ERROR


async def test_revisions_go_on_while_nobody_listens(log: EventLog) -> None:
    for _ in range(3):
        tell(log, PROCESS)
    assert (log.revision, log.subscribers, log.overflows) == (3, 0, 0)


async def test_a_subscriber_may_lag_behind_by_exactly_the_backlog(log: EventLog) -> None:
    with log.subscribe() as slow:
        for _ in range(BACKLOG):
            tell(log, PROCESS)
        log.close()
        assert [change.revision for change in await rest(slow)] == [1, 2, 3, 4, 5]
    assert log.overflows == 0


async def test_a_subscriber_that_does_not_read_is_cut_off_and_told_so_once(log: EventLog) -> None:
    woken: list[str] = []
    slow = log.subscribe()
    slow.on_lag = lambda: woken.append("slow")
    for _ in range(BACKLOG):
        tell(log, PROCESS)
    assert (woken, slow.lagged, log.overflows, log.subscribers) == ([], False, 0, 1)
    tell(log, PROCESS)
    assert (woken, slow.lagged, log.overflows, log.subscribers) == (["slow"], True, 1, 0)
    for _ in range(3):
        tell(log, PROCESS)
    assert (woken, log.overflows) == (["slow"], 1)
    with pytest.raises(LaggedError):
        await rest(slow)


async def test_one_that_does_not_read_takes_nothing_from_one_that_does(log: EventLog) -> None:
    slow, quick = log.subscribe(), log.subscribe()
    changes = aiter(quick)
    for revision in range(1, 4 * BACKLOG):
        tell(log, PROCESS)
        assert (await anext(changes)).revision == revision
    assert (slow.lagged, quick.lagged, log.overflows, log.subscribers) == (True, False, 1, 1)


async def test_one_that_is_stuck_in_a_change_learns_afterwards_that_it_was_cut_off(log: EventLog) -> None:
    slow = log.subscribe()
    changes = aiter(slow)
    tell(log, PROCESS)
    assert (await anext(changes)).revision == 1
    for _ in range(BACKLOG + 1):
        tell(log, PROCESS)
    with pytest.raises(LaggedError):
        await anext(changes)


async def test_one_that_is_waiting_when_it_is_cut_off_is_woken(log: EventLog) -> None:
    subscription = log.subscribe()
    reading = asyncio.create_task(rest(subscription))
    started = asyncio.Event()
    asyncio.get_running_loop().call_soon(started.set)
    await started.wait()
    for _ in range(BACKLOG + 1):
        tell(log, PROCESS)
    with pytest.raises(LaggedError):
        await reading


class Name(str):
    """A name that tells whether somebody still holds it."""

    __slots__ = ("__weakref__",)


async def test_the_memory_of_a_subscriber_that_does_not_read_is_bounded(clock: FakeClock) -> None:
    log = EventLog(clock.now, backlog=BACKLOG, memory=1)
    slow = log.subscribe()
    names: weakref.WeakSet[Name] = weakref.WeakSet()
    held = []
    for number in range(3 * BACKLOG):
        name = Name(f"r{number}")
        names.add(name)
        tell(log, Process(spec=ProcessSpec(name=name, binary="/bin/r"), uuid="u"))
        del name
        held.append(len(names))
    assert held == [1, 2, 3, 4, 5] + [1] * (2 * BACKLOG)
    assert slow.lagged


async def test_closing_the_log_ends_the_subscriptions_after_what_they_were_offered(log: EventLog) -> None:
    unread, waiting = log.subscribe(), log.subscribe()
    told = asyncio.create_task(rest(waiting))
    tell(log, PROCESS)
    tell(log, PROCESS)
    log.close()
    assert [c.revision for c in await rest(unread)] == [1, 2]
    assert [c.revision for c in await told] == [1, 2]
    assert await rest(log.subscribe()) == []


async def test_a_subscription_that_is_left_is_forgotten(log: EventLog) -> None:
    subscriptions = [log.subscribe() for _ in range(3)]
    assert log.subscribers == 3
    left = weakref.ref(subscriptions[0])
    with subscriptions.pop(0):
        pass
    log.unsubscribe(subscriptions[0])
    log.unsubscribe(subscriptions[0])
    tell(log, PROCESS)
    assert log.subscribers == 1
    assert [len(s._pending) for s in subscriptions] == [0, 1]
    gc.collect()
    assert left() is None


async def test_a_subscriber_that_fails_is_forgotten_too(log: EventLog) -> None:
    with pytest.raises(ConnectionError), log.subscribe():
        raise ConnectionError
    assert log.subscribers == 0


async def test_a_subscriber_that_leaves_when_another_is_cut_off_hurts_nobody(log: EventLog) -> None:
    slow, other, third = log.subscribe(), log.subscribe(), log.subscribe()
    slow.on_lag = lambda: log.unsubscribe(other)
    for _ in range(BACKLOG):
        tell(log, PROCESS)
    third._pending.clear()
    tell(log, PROCESS)
    assert slow.lagged
    assert [c.revision for c in third._pending] == [BACKLOG + 1]
    assert log.subscribers == 1


async def test_what_was_read_weighs_nothing_any_more(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broadcast, "MAX_BACKLOG_BYTES", 2 * Change(1, 0.0, PROCESS, None).weight)
    subscription = log.subscribe()
    changes = aiter(subscription)
    tell(log, PROCESS)
    for number in range(1, 20):
        tell(log, PROCESS)  # two are unread now, and never more
        assert (await anext(changes)).revision == number
    assert not subscription.lagged
    for _ in range(2):
        tell(log, PROCESS)
    assert subscription.lagged
