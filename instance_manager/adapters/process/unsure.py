"""Processes of which it cannot be told whether they live: neither given up nor signalled until it can."""

import asyncio
from collections.abc import Callable
from typing import Protocol

import structlog

from instance_manager.app.interfaces import Child
from instance_manager.core.attribution import Liveness, Verdict
from instance_manager.core.process import ExitStatus, Identity

log = structlog.get_logger(__name__)

_FIRST_DELAY, _LONGEST_DELAY = 0.05, 30.0
"""Seconds between attempts to tell, doubled each time."""


class Adopter(Protocol):
    """What is asked again."""

    def attempt(
        self, identity: Identity, uuid: str, on_exit: Callable[[ExitStatus], None]
    ) -> Child | Verdict:
        """Adopt a process if it is certain that it lives; else return what is known."""

    def settled(self, process: "UnsureProcess") -> None:
        """Note that it is clear now whether a process lives."""

    def leftover_descendants(self, identity: Identity, uuid: str) -> Child:
        """See `app.interfaces.ProcessAdopter`."""

    def report_end(self, identity: Identity, uuid: str, on_exit: Callable[[ExitStatus], None]) -> None:
        """Report how the process has ended."""


class UnsureProcess:
    """A recorded process that may live; implements `app.interfaces.Child`.

    It is tried again until it is adopted, or has certainly ended. What it was to be sent is sent then.
    """

    def __init__(
        self,
        identity: Identity,
        uuid: str,
        reason: str,
        *,
        adopter: Adopter,
        on_exit: Callable[[ExitStatus], None],
        on_doubt: Callable[[str], None],
    ) -> None:
        self.identity = identity
        self.reason = reason
        self._uuid = uuid
        self._adopter = adopter
        self._on_exit = on_exit
        self._on_doubt = on_doubt
        self._child: Child | None = None
        """The process, once that is clear, or what it has left behind."""
        self._pending: list[tuple[str, bool]] = []
        self._delay = _FIRST_DELAY
        log.warning("cannot tell whether a process lives; trying again", pid=identity.pid, reason=reason)
        self._next: asyncio.Handle = asyncio.get_running_loop().call_soon(self._begin)

    def signal(self, name: str, *, session: bool) -> None:
        """Send a signal, as soon as it is clear to whom."""
        if self._child is not None:
            self._child.signal(name, session=session)
        elif (name, session) not in self._pending:
            self._pending.append((name, session))

    def describe(self) -> str:
        """Return in words what the process is doing."""
        if self._child is not None:
            return self._child.describe()
        return f"cannot tell whether pid {self.identity.pid} lives: {self.reason}"

    @property
    def launching(self) -> bool:
        """Whether it is not known yet that it executes its program: an earlier daemon has launched it."""
        return False

    async def launched(self) -> str | None:
        """Return at once."""
        return None

    async def end_tree(self) -> str | None:
        """Kill the descendants until none is left, or until the timeout."""
        child = self._child or self._adopter.leftover_descendants(self.identity, self._uuid)
        return await child.end_tree()

    def close(self) -> None:
        """Do not try again."""
        self._next.cancel()

    def _begin(self) -> None:
        self._on_doubt(self.reason)
        self._next = asyncio.get_running_loop().call_later(self._delay, self._try)

    def _try(self) -> None:
        found = self._adopter.attempt(self.identity, self._uuid, self._on_exit)
        if isinstance(found, Verdict) and found.liveness is Liveness.UNSURE:
            self._still_unsure(found.reason)
            return
        self._adopter.settled(self)
        self._on_doubt("")
        lives = not isinstance(found, Verdict)
        log.info("it is clear now whether the process lives", pid=self.identity.pid, lives=lives)
        if isinstance(found, Verdict):
            self._child = self._adopter.leftover_descendants(self.identity, self._uuid)
            self._adopter.report_end(self.identity, self._uuid, self._on_exit)
            return
        self._child = found
        for name, session in self._pending:
            found.signal(name, session=session)

    def _still_unsure(self, reason: str) -> None:
        if reason != self.reason:
            self.reason = reason
            self._on_doubt(reason)
        self._delay = min(self._delay * 2, _LONGEST_DELAY)
        self._next = asyncio.get_running_loop().call_later(self._delay, self._try)
