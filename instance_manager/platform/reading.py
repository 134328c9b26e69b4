"""Reading the memory of other processes, which can hang for as long as they do."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import structlog

from instance_manager.platform.proc import UnreadableError

log = structlog.get_logger(__name__)

PATIENCE = 0.1
"""Seconds that one read may take, while the event loop is not held up itself."""
MOST_HUNG = 16
"""Largest number of reads that hang at once; each holds a thread. Beyond it nothing is read."""
_LOOKS = 0.01
"""Seconds between looks at how long the reads in progress take."""

Value = TypeVar("Value")


class BoundedReader:
    """Reads facts about many processes in daemon threads, which nobody ever joins."""

    def __init__(self) -> None:
        self._hung: set[int] = set()
        """PIDs whose read hangs in a thread that was given up."""

    @property
    def hung(self) -> int:
        """How many reads hang."""
        return len(self._hung)

    async def read(
        self, pids: Sequence[int], read: Callable[[int], Value]
    ) -> dict[int, Value | UnreadableError]:
        """Return what `read` returns for each PID, or why that cannot be had in time.

        A read that takes longer than `PATIENCE` is given up, and the others go on.
        """
        batch = _Batch(pids, read, self._hung)
        if not pids:
            return batch.results
        batch.work_on()
        while len(batch.results) < len(pids):
            await batch.progress(_LOOKS)
            batch.give_up_slow()
        return batch.results


class _Batch(Generic[Value]):
    """One call's reads: done by a thread, and by another one when that hangs."""

    def __init__(self, pids: Sequence[int], read: Callable[[int], Value], hung: set[int]) -> None:
        self.results: dict[int, Value | UnreadableError] = {}
        self._read = read
        self._hung = hung
        self._pids = deque(pids)
        self._current: int | None = None
        """The PID that is being read."""
        self._looks = 0
        """How often it was seen being read."""
        self._lock = threading.Lock()
        self._loop = asyncio.get_running_loop()
        self._done = asyncio.Event()

    def work_on(self) -> None:
        """Start a thread for what is left; without one, nothing of it can be read."""
        reason = "too many reads of other processes hang"
        if len(self._hung) < MOST_HUNG:
            try:
                threading.Thread(target=self._work, name="proc-reader", daemon=True).start()
            except RuntimeError as error:  # no PID or memory for it
                reason = f"no thread can be started: {error}"
            else:
                return
        self.results |= dict.fromkeys(self._pids, UnreadableError(reason))
        self._pids.clear()

    async def progress(self, seconds: float) -> None:
        """Wait until all is read, or so long."""
        handle = self._loop.call_later(seconds, self._done.set)
        await self._done.wait()
        handle.cancel()
        self._done.clear()

    def give_up_slow(self) -> None:
        """Give up the read in progress if it takes too long, and go on with the next."""
        with self._lock:
            self._looks += 1
            if self._current is None or self._looks * _LOOKS < PATIENCE:
                return
            pid, self._current = self._current, None
            self._hung.add(pid)
            self.results[pid] = UnreadableError("reading its memory hangs")
        log.debug("read hangs", pid=pid, hung=len(self._hung))
        if self._pids:
            self.work_on()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._pids:
                    break
                pid = self._pids.popleft()
                if pid in self._hung:
                    self.results[pid] = UnreadableError("reading its memory hangs")
                    continue
                self._current, self._looks = pid, 0
            result = self._attempt(pid)
            with self._lock:
                if self._current != pid:  # it was given up
                    self._hung.discard(pid)
                    return
                self._current = None
                self.results[pid] = result
        try:
            self._loop.call_soon_threadsafe(self._done.set)
        except RuntimeError:  # the loop is closed, and nobody waits
            return

    def _attempt(self, pid: int) -> Value | UnreadableError:
        try:
            return self._read(pid)
        except UnreadableError as error:
            return error
        except Exception as error:  # noqa: BLE001 - a thread that ended would leave its caller waiting
            return UnreadableError(f"it cannot be read: {error!r}")
