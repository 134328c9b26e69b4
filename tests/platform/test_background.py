"""Background work: whatever goes wrong in it is told and counted, and it goes on."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from instance_manager.platform.background import EVENT_LOOP, Background
from tests.support.patience import patience

DEADLINE = patience(20)


class Attempts:
    """Work that fails as often as it is told, and lets a test wait for each attempt."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self._ended = asyncio.Semaphore(0)
        self.count = 0

    async def __call__(self) -> None:
        self.count += 1
        self._ended.release()
        if self._errors:
            raise self._errors.pop(0)

    async def some(self, count: int) -> None:
        async with asyncio.timeout(DEADLINE):
            for _ in range(count):
                await self._ended.acquire()


@pytest.fixture
async def background() -> AsyncIterator[Background]:
    opened = Background("looking", first_delay=0.001, longest_delay=0.01)
    yield opened
    await opened.close()


async def test_work_that_fails_is_run_again_until_it_returns(background: Background) -> None:
    work = Attempts(KeyError("odd"), ValueError("odder"))
    with capture_logs() as lines:
        async with asyncio.timeout(DEADLINE):
            await background.run("looking", work)
    assert work.count == 3
    assert (background.works["looking"].failures, background.works["looking"].error) == (2, "")
    first, last = lines
    assert (first["event"], first["work"], first["log_level"]) == (
        "background work failed",
        "looking",
        "error",
    )
    assert first["exc_info"].args == ("odd",)
    assert last["event"] == "background work goes on"


async def test_a_look_that_fails_does_not_end_those_after_it(background: Background) -> None:
    work = Attempts(*(OSError(28, "No space left on device") for _ in range(5)))
    with capture_logs() as lines:
        background.every("looking", 0.001, work)
        await work.some(7)
    assert background.works["looking"].failures == 5
    told = [line for line in lines if line["event"] == "background work failed"]
    assert [line["reason"] for line in told] == ["No space left on device"]
    assert "exc_info" not in told[0]


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise SystemError("AST constructor recursion depth mismatch")


async def test_an_error_that_cannot_be_shown_ends_no_work(background: Background) -> None:
    work = Attempts(UnprintableError())
    background.every("looking", 0.001, work)
    await work.some(2)
    assert background.works["looking"].failures == 1


async def test_a_look_may_be_a_function_too(background: Background) -> None:
    looked = asyncio.Event()
    errors = [RuntimeError("once")]

    def look() -> None:
        if errors:
            raise errors.pop()
        looked.set()

    background.every("looking", 0.001, look)
    async with asyncio.timeout(DEADLINE):
        await looked.wait()
    assert background.works["looking"].failures == 1


async def test_what_is_awaited_and_was_cancelled_does_not_end_the_work(background: Background) -> None:
    again = asyncio.Event()
    waited: list[asyncio.Future[None]] = []

    async def work() -> None:
        if waited:
            again.set()
            return
        waited.append(asyncio.get_running_loop().create_future())
        waited[0].cancel()
        await waited[0]

    background.run("looking", work)
    async with asyncio.timeout(DEADLINE):
        await again.wait()
    assert background.works["looking"].failures == 1


async def test_an_error_of_one_ends_nothing_of_another(background: Background) -> None:
    work = Attempts()
    background.every("other", 0.001, work)

    async def fail() -> None:
        raise ZeroDivisionError

    def fail_too() -> None:
        raise LookupError("this one")

    await background.start("looking", fail())
    with background.guard("guarded"):
        fail_too()
    await work.some(3)
    assert background.works["looking"].error == "ZeroDivisionError: "
    assert background.works["guarded"].error == "LookupError: this one"
    assert background.works["other"].failures == 0


async def test_health_is_told_when_it_changes(background: Background) -> None:
    told: list[tuple[str, bool]] = []
    background.observe(lambda name, healthy: told.append((name, healthy)))
    work = Attempts(KeyError(1), KeyError(2))
    background.every("looking", 0.001, work)
    await work.some(4)
    assert told == [("looking", False), ("looking", True)]


async def test_an_error_of_a_callback_is_told_and_counted(background: Background) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(background.on_loop_error)

    def fail() -> None:
        raise ValueError("nobody awaits this")

    with capture_logs() as lines:
        loop.call_soon(fail)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    loop.set_exception_handler(None)
    assert background.works[EVENT_LOOP].failures == 1
    assert lines[0]["reason"] == "ValueError: nobody awaits this"


async def test_closing_cancels_all_work(background: Background) -> None:
    forever = asyncio.Event()

    async def wait() -> None:
        await forever.wait()

    tasks = [background.run("a", wait), background.start("b", wait()), background.every("c", 1000, wait)]
    async with asyncio.timeout(DEADLINE):
        await asyncio.sleep(0)
        await background.close()
    assert all(task.cancelled() for task in tasks)


async def test_a_single_work_can_be_ended() -> None:
    background = Background("a", "b")

    async def work() -> None:
        await asyncio.Event().wait()

    ended, going = background.start("a", work()), background.start("b", work())
    await asyncio.sleep(0)  # they begin
    await background.end("a")
    assert (ended.cancelled(), going.done()) == (True, False)
    await background.close()
