"""Work in the background of a program: whatever goes wrong in it, it is told, counted and goes on."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import structlog

from instance_manager.platform.backoff import exponential_backoff

log = structlog.get_logger(__name__)

EVENT_LOOP = "event-loop"
"""Name under which errors of callbacks count that are no work of their own."""
_FIRST_DELAY = 1.0
_LONGEST_DELAY = 30.0
"""Seconds from a failure to the next attempt; the delay doubles from the first to the longest."""
_LONGEST_TEXT = 500
"""Characters of an error that are kept."""


@dataclass(slots=True)
class Work:
    """What is known of one kind of work."""

    failures: int = 0
    """Number of unexpected errors since the start."""
    error: str = ""
    """Why it is failing now; empty if it is not."""
    in_a_row: int = 0
    """Number of failures since it last succeeded."""


class Background:
    """Runs work by name. An unexpected error ends no work for good, and no other work at all."""

    def __init__(
        self,
        *names: str,
        first_delay: float = _FIRST_DELAY,
        longest_delay: float = _LONGEST_DELAY,
    ) -> None:
        """Run nothing yet; `names` are shown before anything has failed."""
        self._works = {name: Work() for name in names}
        self._first_delay = first_delay
        self._longest_delay = longest_delay
        self._tasks: set[asyncio.Task[None]] = set()
        self._on_health: Callable[[str, bool], object] = lambda _name, _healthy: None

    @property
    def works(self) -> Mapping[str, Work]:
        """The state of each work by name."""
        return self._works

    def observe(self, on_health: Callable[[str, bool], object]) -> None:
        """Call a function with the name of a work when it begins to fail (False) and goes on (True)."""
        self._on_health = on_health

    def run(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        """Run a coroutine function until it returns; it is called again, later, when it raises."""
        return self._start(name, self._repeat(name, work))

    def every(
        self, name: str, seconds: float, look: Callable[[], Awaitable[None] | None]
    ) -> asyncio.Task[None]:
        """Call a function, or a coroutine function, `seconds` after its last end, until cancelled."""
        return self._start(name, self._look_again_and_again(name, seconds, look))

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine once."""
        return self._start(name, self._once(name, work))

    @contextmanager
    def guard(self, name: str) -> Iterator[None]:
        """Tell and count an unexpected error of the block, which ends there."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - nobody foresaw it
            self.failed(name, error)
        else:
            self.succeeded(name)

    def on_loop_error(self, _: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        """Tell and count an error of a callback; for `loop.set_exception_handler`."""
        error = context.get("exception") or RuntimeError(str(context.get("message")))
        self.failed(EVENT_LOOP, error)
        # The loop goes on with the next callback whatever this one was.
        self.succeeded(EVENT_LOOP)

    async def close(self) -> None:
        """Cancel all work."""
        await self._end(self._tasks)

    async def end(self, name: str) -> None:
        """Cancel a work."""
        await self._end({task for task in self._tasks if task.get_name() == name})

    @staticmethod
    async def _end(tasks: Collection[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def failed(self, name: str, error: BaseException) -> None:
        """Tell and count a failure of a work."""
        work = self._works.setdefault(name, Work())
        text = _text(error)
        fresh, work.error = not work.error, text
        work.failures += 1
        work.in_a_row += 1
        if work.in_a_row in {1, 10, 100} or work.in_a_row % 1000 == 0:
            # What the machine lacks is explained by its words, a defect only by where it happened.
            where = {} if isinstance(error, OSError) else {"exc_info": error}
            # Python itself may fail to render a traceback, which must not end the work.
            with suppress(Exception):
                log.error("background work failed", work=name, reason=text, failures=work.failures, **where)
        if fresh:
            self._on_health(name, False)

    def succeeded(self, name: str) -> None:
        """Note that a work has done what it should."""
        work = self._works.setdefault(name, Work())
        if not work.error:
            return
        work.error = ""
        work.in_a_row = 0
        if name != EVENT_LOOP:
            log.info("background work goes on", work=name, failures=work.failures)
        self._on_health(name, True)

    def _start(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _once(self, name: str, work: Awaitable[None]) -> None:
        try:
            await self._attempt(work)
        except Exception as error:  # noqa: BLE001 - nobody foresaw it
            self.failed(name, error)
        else:
            self.succeeded(name)

    async def _repeat(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        loop = asyncio.get_running_loop()
        delays = exponential_backoff(self._first_delay, self._longest_delay)
        while True:
            begun = loop.time()
            # There is no other sign of success of what runs without end.
            settled = loop.call_later(self._longest_delay, self.succeeded, name)
            try:
                await self._attempt(work())
            except Exception as error:  # noqa: BLE001 - nobody foresaw it
                self.failed(name, error)
            else:
                self.succeeded(name)
                return
            finally:
                settled.cancel()
            if loop.time() - begun > self._longest_delay:
                delays = exponential_backoff(self._first_delay, self._longest_delay)
            await asyncio.sleep(next(delays))

    async def _look_again_and_again(
        self, name: str, seconds: float, look: Callable[[], Awaitable[None] | None]
    ) -> None:
        delays = exponential_backoff(self._first_delay, self._longest_delay)
        delay = seconds
        while True:
            await asyncio.sleep(delay)
            try:
                if (looking := look()) is not None:
                    await self._attempt(looking)
            except Exception as error:  # noqa: BLE001 - nobody foresaw it
                self.failed(name, error)
                delay = max(seconds, next(delays))
            else:
                self.succeeded(name)
                delays = exponential_backoff(self._first_delay, self._longest_delay)
                delay = seconds

    @staticmethod
    async def _attempt(work: Awaitable[None]) -> None:
        """Await work; it has failed if not itself, but something that it waits for was cancelled."""
        try:
            await work
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise RuntimeError("something that it waited for was cancelled") from error


def _text(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[:_LONGEST_TEXT]
    text = type(error).__name__
    with suppress(Exception):
        text = f"{text}: {error}"
    return text[:_LONGEST_TEXT]
