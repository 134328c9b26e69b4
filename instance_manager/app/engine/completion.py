"""Completing changes whose caller goes away."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog

from instance_manager.core.errors import InstanceManagerError, ResourceExhaustedError, UnavailableError
from instance_manager.platform.caller import CALLER

log = structlog.get_logger(__name__)

T = TypeVar("T")

MOST = 1024
"""Largest number of changes in progress; those whose callers have gone count, too."""
MOST_OF_ENGINE = 16
"""Largest number of those of one engine: one that hangs must not keep others from being changed."""

MOST_BYTES = 6 << 20
"""Largest number of bytes of their requests; what is in one is in memory several times."""


@dataclass(frozen=True, slots=True)
class EngineChange:
    """Which change it is."""

    method: str
    address: str = ""
    """Of the engine, HOST:PORT; empty if it is about none."""
    name: str = ""
    """Of the engine; empty if unknown."""
    subject: str = ""
    """What of the engine is changed, as FIELD=VALUE."""
    size: int = 0
    """Bytes of its request."""

    @property
    def words(self) -> dict[str, str]:
        """What a line of the log says of it."""
        told = {"method": self.method, "name": self.name, "address": self.address, "subject": self.subject}
        return {key: value for key, value in told.items() if value}


class Completion:
    """Completes every change that was begun: half of one would leave replicas that differ."""

    def __init__(self) -> None:
        self._changes: dict[asyncio.Task[Any], EngineChange] = {}
        self._of_engine: Counter[tuple[str, str]] = Counter()
        """How many are in progress, by address and name of the engine."""
        self._bytes = 0
        """Of the requests of those in progress."""
        self._closed = False

    def __len__(self) -> int:
        """Return how many changes are in progress."""
        return len(self._changes)

    async def of(
        self,
        change: Coroutine[Any, Any, T],
        which: EngineChange,
        failure: Callable[[T], str] = lambda _: "",
    ) -> T:
        """Return what a change returns. If the caller is cancelled, it goes on to its end, which is logged.

        Args:
            change: the change.
            which: it is.
            failure: returns why it has failed, from what it returns; empty if it has not.

        Raises:
            ResourceExhaustedError: if too much is in progress; it is not begun then.
            UnavailableError: if the daemon ends; it is not begun then, or was not completed.
        """
        if refusal := self._refusal(which):
            change.close()
            raise refusal
        task = asyncio.get_running_loop().create_task(change)
        self._changes[task] = which
        self._of_engine[_engine(which)] += 1
        self._bytes += which.size
        task.add_done_callback(self._ended)
        caller = CALLER.get()
        caller.retain()
        task.add_done_callback(lambda _: caller.release())
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled() and self._closed:
                raise UnavailableError(
                    f"{which.method} was not completed: the daemon is shutting down"
                ) from None
            # Called at once if it has ended in this very moment.
            task.add_done_callback(lambda task: _log_outcome(which, task, failure))
            raise

    def _refusal(self, which: EngineChange) -> InstanceManagerError | None:
        """Return why a change cannot be begun, if it cannot."""
        if self._closed:
            return UnavailableError(f"cannot begin {which.method}: the daemon is shutting down")
        if len(self._changes) >= MOST:
            return ResourceExhaustedError(
                f"cannot begin another change of an engine: {MOST} are in progress and that is the most "
                "there may be; ask again later"
            )
        if which.address and self._of_engine[_engine(which)] >= MOST_OF_ENGINE:
            return ResourceExhaustedError(
                f"cannot begin {which.method}: {MOST_OF_ENGINE} changes of the engine "
                f"{which.name or which.address} are in progress and that is the most there may be; if it "
                "hangs, they end with their timeouts"
            )
        if self._bytes + which.size > MOST_BYTES:
            return ResourceExhaustedError(
                f"cannot begin {which.method}: the requests of those in progress have {self._bytes} bytes, "
                f"this one has {which.size} and {MOST_BYTES} is the most there may be; ask again later"
            )
        return None

    def _ended(self, task: asyncio.Task[Any]) -> None:
        which = self._changes.pop(task)
        self._bytes -= which.size
        engine = _engine(which)
        self._of_engine[engine] -= 1
        if not self._of_engine[engine]:
            del self._of_engine[engine]
        if not task.cancelled():
            task.exception()  # nobody may be left to hear of it

    def drain(self) -> None:
        """Begin no more changes; those in progress go on."""
        self._closed = True

    async def close(self) -> None:
        """Begin no more changes, and cut off those in progress, each of which is logged."""
        self.drain()
        tasks = tuple(self._changes)
        for task in tasks:
            log.warning("change of an engine cut off by the end of the daemon", **self._changes[task].words)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _engine(which: EngineChange) -> tuple[str, str]:
    return which.address, which.name


def _log_outcome(which: EngineChange, task: asyncio.Task[T], failure: Callable[[T], str]) -> None:
    """Log what has become of a change whose caller has gone."""
    if task.cancelled():
        return  # cut off, which is logged
    error = task.exception()
    if error is not None and not isinstance(error, InstanceManagerError):
        log.error(
            "change of an engine failed unexpectedly after its caller had gone", exc_info=error, **which.words
        )
    elif reason := str(error) if error is not None else failure(task.result()):
        log.warning("change of an engine failed after its caller had gone", reason=reason, **which.words)
    else:
        log.info("change of an engine completed after its caller had gone", **which.words)
