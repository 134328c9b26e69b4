"""Blocking calls in threads that nobody waits for at the end: a file system may never answer."""

import asyncio
import errno
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

Result = TypeVar("Result")


class NoThreadError(OSError):
    """No thread can be started at present; to be tried again later."""

    def __init__(self) -> None:
        super().__init__(errno.EAGAIN, "no thread can be started; raise the limit of PIDs")


class Threads:
    """Up to `most` threads, started when they are needed. They do not keep the program from ending."""

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._count = 0
        self._pending = 0
        """Number of calls that have not ended."""
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    def close(self) -> None:
        """Let the threads end after their present call; those that hang are left behind."""
        for _ in range(self._count):
            self._calls.put(None)
        self._count = 0

    def run(self, call: Callable[..., Result], *args: Any) -> "asyncio.Future[Result]":
        """Call a function in a thread; cancelling the future does not end the call.

        Raises:
            NoThreadError: if there is no thread for it.
        """
        if self._pending >= self._count and self._count < self._most:
            self._start_thread()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()

        def ended(result: Any, error: BaseException | None) -> None:
            self._pending -= 1
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        def work() -> None:
            result, failure = None, None
            try:
                result = call(*args)
            except BaseException as error:  # noqa: BLE001 - it is raised where the future is awaited
                failure = error
            with suppress(RuntimeError):  # the event loop has ended meanwhile
                loop.call_soon_threadsafe(ended, result, failure)

        self._pending += 1
        self._calls.put(work)
        return future

    def _start_thread(self) -> None:
        name = f"{self._name}-{self._count}"
        try:
            threading.Thread(target=self._work, name=name, daemon=True).start()
        except RuntimeError as error:
            raise NoThreadError from error
        self._count += 1

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
