"""Threads for blocking calls: a shortage of them passes, and one that hangs keeps nobody."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator

import pytest

from instance_manager.platform.threads import NoThreadError, Threads
from tests.support.patience import patience
from tests.support.threads import no_thread

DEADLINE = patience(20)


@pytest.fixture
async def threads() -> AsyncIterator[Threads]:
    opened = Threads("test", most=2)
    yield opened
    opened.close()


async def test_a_call_returns_what_it_returns_and_raises_what_it_raises(threads: Threads) -> None:
    def fail() -> None:
        raise LookupError("no")

    async with asyncio.timeout(DEADLINE):
        assert await threads.run(divmod, 7, 2) == (3, 1)
        with pytest.raises(LookupError):
            await threads.run(fail)
        assert await threads.run(lambda: threading.current_thread().daemon)


async def test_no_more_threads_than_allowed_and_the_rest_waits_its_turn(threads: Threads) -> None:
    seen: set[str] = set()

    def work() -> None:
        seen.add(threading.current_thread().name)

    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(*(threads.run(work) for _ in range(50)))
    assert seen <= {"test-0", "test-1"}


async def test_a_shortage_of_threads_is_told_to_the_caller_and_passes(
    threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    with no_thread(monkeypatch), pytest.raises(NoThreadError):
        threads.run(int)
    async with asyncio.timeout(DEADLINE):
        assert await threads.run(int) == 0
        with no_thread(monkeypatch):  # there is one already
            assert await threads.run(int) == 0


async def test_a_call_that_is_cancelled_takes_no_thread_away_when_it_has_ended(threads: Threads) -> None:
    hanging = threading.Event()
    calls = [threads.run(hanging.wait) for _ in range(2)]
    for call in calls:
        call.cancel()
    hanging.set()
    async with asyncio.timeout(DEADLINE):
        assert await threads.run(int) == 0


def test_a_call_that_never_ends_does_not_keep_the_program() -> None:
    program = (
        "import asyncio, threading, uvloop\n"
        "from instance_manager.platform.threads import Threads\n"
        "async def main():\n"
        "    threads = Threads('test', 1)\n"
        "    threads.run(threading.Event().wait)\n"
        "    threads.close()\n"
        "uvloop.run(main())\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=patience(30))
