"""The fakes themselves, as far as other tests rely on them."""

import asyncio

import pytest

from instance_manager.app.interfaces import Child, Logs, Readiness, Spawner, SpawnRequest
from instance_manager.core.errors import NotFoundError
from instance_manager.core.process import ExitStatus
from instance_manager.platform.clock import Clock
from tests.support.fakes import FakeClock, FakeLogs, FakeReadiness, FakeSpawner, Notices

ORDER = SpawnRequest(name="r", uuid="u", command=("/bin/r",), recovery_metadata="", output=1)


async def test_fakes_can_stand_where_the_protocols_do() -> None:
    # mypy is what checks this; at run time there is only something of each.
    fakes: tuple[Spawner, Clock, Readiness, Logs] = (FakeSpawner(), FakeClock(), FakeReadiness(), FakeLogs())
    child: Child = fakes[0].spawn(ORDER, lambda _: None)
    assert await child.end_tree() is None


async def test_timers_come_in_order_also_those_that_are_set_meanwhile() -> None:
    clock, done = FakeClock(), list[tuple[str, float]]()

    def note(what: str) -> None:
        done.append((what, clock.now() - 1000))

    def again() -> None:
        note("first")
        clock.call_later(1, lambda: note("second"))

    clock.call_later(3, lambda: note("third"))
    clock.call_later(1, again)
    clock.call_later(2, lambda: note("never")).cancel()
    clock.call_later(9, lambda: note("late"))
    clock.advance(0.5)
    assert done == []
    clock.advance(3.5)
    assert done == [("first", 1), ("second", 2), ("third", 3)]
    assert (clock.now(), clock.delays) == (1004, [5])


async def test_a_child_ends_once_by_itself_or_soon_after_a_signal_that_it_obeys() -> None:
    spawner = FakeSpawner(obeys={"SIGINT"})
    ends: list[ExitStatus] = []
    child = spawner.spawn(ORDER, ends.append)
    child.signal("SIGHUP", session=False)
    child.signal("SIGINT", session=False)
    child.signal("SIGINT", session=True)
    assert ends == [], "not before the caller has done what it is doing"
    await spawner.notices.until(lambda: child.ended)
    assert ends == [ExitStatus(signal="SIGINT")]
    child.signal("SIGKILL", session=True)
    assert child.signals == [("SIGHUP", False), ("SIGINT", False), ("SIGINT", True)]
    with pytest.raises(RuntimeError, match="ended already"):
        child.exit()


async def test_waiting_for_what_never_comes_fails() -> None:
    with pytest.raises(TimeoutError):
        await Notices().until(lambda: False, within=0)


async def test_readiness_is_answered_by_port_and_forgets_who_has_gone() -> None:
    readiness = FakeReadiness()
    asked = [asyncio.create_task(readiness.wait(port, 30, 1)) for port in (1, 2, 3)]
    await readiness.notices.until(lambda: len(readiness.waiting) == 3)
    readiness.answer(2, "nothing listens")
    readiness.answer(1)
    asked[2].cancel()
    assert await asyncio.gather(*asked[:2]) == [None, "nothing listens"]
    with pytest.raises(asyncio.CancelledError):
        await asked[2]
    assert readiness.waiting == {}


async def test_logs_are_read_from_their_tail_and_followed_to_the_end() -> None:
    logs = FakeLogs()
    with pytest.raises(NotFoundError):
        await anext(logs.read("r", follow=False, tail=None))
    with logs.writer("r") as descriptor:
        assert descriptor == FakeLogs.DESCRIPTOR
    logs.write("r", "1", "2", "3")
    assert [line async for line in logs.read("r", follow=False, tail=None)] == ["1", "2", "3"]
    assert [line async for line in logs.read("r", follow=False, tail=2)] == ["2", "3"]
    followed = logs.read("r", follow=True, tail=1)
    assert await anext(followed) == "3"
    following = asyncio.ensure_future(anext(followed))
    logs.write("r", "4", "5")
    assert await following == "4"
    logs.release("r")
    assert [line async for line in followed] == ["5"]
    with pytest.raises(RuntimeError, match="nobody writes"):
        logs.release("r")
