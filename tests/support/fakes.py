"""Fakes for the Protocols of `interfaces`: a test decides what happens, and when.

Nothing happens by itself: time stands still until it is advanced, a process lives until it is ended, and
nothing is ready until a test says so. With fakes that share one `Notices`, a test can wait for anything that
any of them has seen.
"""

import asyncio
import heapq
import itertools
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from instance_manager.app.interfaces import JournalRecord, SpawnRequest
from instance_manager.core.change import Change
from instance_manager.core.errors import NotFoundError, PermissionDeniedError
from instance_manager.core.process import ExitStatus, Identity
from tests.support.patience import patience


class Notices:
    """Where fakes say that something has happened and tests wait for it."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    def post(self) -> None:
        """Say that something has happened."""
        for condition, future in self._waiting:
            if not future.done() and condition():
                future.set_result(None)
        self._waiting = [w for w in self._waiting if not w[1].done()]

    async def until(self, condition: Callable[[], bool], within: float = 10.0) -> None:
        """Wait until a condition holds, looking at it after every notice; TimeoutError if it never does."""
        if condition():
            return
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((condition, future))
        async with asyncio.timeout(patience(within)):
            await future


class FakeTimer:
    """Something that a `FakeClock` is going to do."""

    def __init__(self, clock: "FakeClock", due: float, action: Callable[[], None]) -> None:
        self.due = due
        self.action = action
        self._clock = clock

    def cancel(self) -> None:
        """Call it off; nothing if it is over."""
        self._clock.timers.discard(self)


class FakeClock:
    """Time that passes when it is told to; implements `interfaces.Clock`."""

    def __init__(self, notices: Notices | None = None, start: float = 1000.0) -> None:
        self.notices = notices or Notices()
        self.time = start
        self.timers: set[FakeTimer] = set()
        """What is still to be done."""
        self._queue: list[tuple[float, int, FakeTimer]] = []
        self._order = itertools.count()

    def now(self) -> float:
        """Return the time it was advanced to."""
        return self.time

    def call_later(self, delay: float, action: Callable[[], None]) -> FakeTimer:
        """Do something when time has been advanced so far; with 0 at the next `advance`, even by 0."""
        timer = FakeTimer(self, self.time + delay, action)
        self.timers.add(timer)
        heapq.heappush(self._queue, (timer.due, next(self._order), timer))
        self.notices.post()
        return timer

    def advance(self, seconds: float = 0.0) -> None:
        """Let time pass and do what is due, in order, what is set meanwhile too."""
        end = self.time + seconds
        while self._queue and self._queue[0][0] <= end:
            due, _, timer = heapq.heappop(self._queue)
            if timer in self.timers:
                self.timers.discard(timer)
                self.time = max(self.time, due)
                timer.action()
        self.time = end
        self.notices.post()

    @property
    def delays(self) -> list[float]:
        """Seconds until each thing that is still to be done, soonest first."""
        return sorted(timer.due - self.time for timer in self.timers)


class FakeChild:
    """A process that ends when a test says so, or on the signals it obeys; implements `interfaces.Child`."""

    def __init__(
        self,
        order: SpawnRequest,
        identity: Identity,
        on_exit: Callable[[ExitStatus], None],
        *,
        obeys: Iterable[str],
        notices: Notices,
    ) -> None:
        self.order = order
        self.identity = identity
        self.obeys = set(obeys)
        """Names of the signals that end it, soon after they were sent."""
        self.notices = notices
        self.signals: list[tuple[str, bool]] = []
        """What was sent to it: the name, and whether to its process group too."""
        self.ended = False
        self.gone = False
        """`end_tree` has said that nothing is left."""
        self.description = f"pid {identity.pid} is in state D"
        self.remains: deque[str | Exception] = deque()
        """What the next calls of `end_tree` tell or raise, one each; after that nothing is left."""
        self.signal_failures: deque[Exception] = deque()
        """What the next signals raise, one each."""
        self.trees_asked = 0  # how often `end_tree` was called
        self.tree = asyncio.Event()
        """While it is cleared, `end_tree` does not come back."""
        self.tree.set()
        self.launch = asyncio.Event()
        self.launching = False
        """Whether it is launched only when `launch` is set."""
        self.launch_failure: str | None = None
        self._on_exit = on_exit

    async def launched(self) -> str | None:
        """Wait until it executes its program, or why it does not."""
        await self.launch.wait()
        return self.launch_failure

    def signal(self, name: str, *, session: bool) -> None:
        """Remember the signal, and end soon if it is one that is obeyed."""
        if self.ended:
            return
        if self.signal_failures:
            raise self.signal_failures.popleft()
        self.signals.append((name, session))
        if name in self.obeys:
            asyncio.get_running_loop().call_soon(self._end, ExitStatus(signal=name))
        self.notices.post()

    def describe(self) -> str:
        """Return `description`."""
        return self.description

    async def end_tree(self) -> str | None:
        """Tell what `remains` says when the test allows it."""
        self.trees_asked += 1
        self.notices.post()
        await self.tree.wait()
        if self.remains:
            told = self.remains.popleft()
            if isinstance(told, Exception):
                raise told
            return told
        self.gone = True
        self.notices.post()
        return None

    def exit(self, status: ExitStatus | None = None) -> None:
        """End the leader, with status 0 if nothing else is said; RuntimeError if it has ended already."""
        if self.ended:
            raise RuntimeError(f"{self.order.name} has ended already")
        self._end(status or ExitStatus())

    def _end(self, status: ExitStatus) -> None:
        if not self.ended:
            self.ended = True
            self._on_exit(status)
            self.notices.post()


class FakeSpawner:
    """Starts processes that exist only here; implements `interfaces.Spawner`."""

    def __init__(self, notices: Notices | None = None, *, obeys: Iterable[str] = ()) -> None:
        self.notices = notices or Notices()
        self.obeys = set(obeys)
        """Names of the signals that end processes spawned from now on."""
        self.failures: deque[Exception] = deque()
        """What the next spawns raise, one each."""
        self.forbidden: set[str] = set()
        """Programs that may not be started."""
        self.children: list[FakeChild] = []
        """Every process that was started, in order."""

    def check_allowed(self, program: str) -> None:
        """Raise PermissionDeniedError for what is `forbidden`."""
        if program in self.forbidden:
            raise PermissionDeniedError(f"cannot start {program}: it is forbidden")

    def spawn(self, order: SpawnRequest, on_exit: Callable[[ExitStatus], None]) -> FakeChild:
        """Start a process, or raise the next of `failures`."""
        if self.failures:
            raise self.failures.popleft()
        number = len(self.children)
        identity = Identity(pid=1000 + number, start_time=number)
        child = FakeChild(order, identity, on_exit, obeys=self.obeys, notices=self.notices)
        self.children.append(child)
        self.notices.post()
        return child

    def child(self, uuid: str) -> FakeChild:
        """Return the process that carries a UUID."""
        return next(child for child in self.children if child.order.uuid == uuid)


class FakeReadiness:
    """Answers when a test does; implements `interfaces.Readiness`."""

    def __init__(self, notices: Notices | None = None) -> None:
        self.notices = notices or Notices()
        self.waiting: dict[int, asyncio.Future[str | None]] = {}
        """By port: who waits for an answer."""
        self.within: dict[int, float] = {}
        """By port: the seconds that were given last."""

    async def wait(
        self, port: int, within: float, leader: int, tell: Callable[[str], None] = lambda _: None
    ) -> str | None:
        """Wait for `answer`; the seconds do not run out by themselves."""
        del leader
        tell(f"nobody has answered for {port}")
        future: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self.waiting[port] = future
        self.within[port] = within
        self.notices.post()
        try:
            return await future
        finally:
            if self.waiting.get(port) is future:
                del self.waiting[port]

    def fail(self, port: int, error: Exception) -> None:
        """Let the check of a port end with an error."""
        self.waiting[port].set_exception(error)

    def answer(self, port: int, reason: str | None = None) -> None:
        """Say that the process on a port serves, or why it does not."""
        future = self.waiting[port]
        if not future.done():
            future.set_result(reason)


class FakeLogs:
    """Logs in memory; implements `interfaces.Logs`."""

    DESCRIPTOR = 1_000_000  # what every writer is given; no process has it open

    def __init__(self, notices: Notices | None = None) -> None:
        self.notices = notices or Notices()
        self.failures: deque[Exception] = deque()
        """What the next writers raise, one each."""
        self.writers: Counter[str] = Counter()
        """By name: how many processes write."""
        self.lines: dict[str, list[str]] = {}
        """By name: what was written."""

    @contextmanager
    def writer(self, name: str) -> Iterator[int]:
        """Count a writer, or raise the next of `failures`."""
        if self.failures:
            raise self.failures.popleft()
        self.writers[name] += 1
        self.lines.setdefault(name, [])
        yield self.DESCRIPTOR

    def adopt(self, name: str, pid: int | None) -> None:
        """Count the writer of an earlier daemon."""
        del pid
        self.writers[name] += 1
        self.lines.setdefault(name, [])

    def release(self, name: str, *, failed: bool = False) -> None:
        """Count a writer off; RuntimeError if none is left."""
        if not self.writers[name]:
            raise RuntimeError(f"nobody writes the log of {name}")
        del failed
        self.writers[name] -= 1
        self.notices.post()

    def write(self, name: str, *lines: str) -> None:
        """Write what a process would."""
        self.lines[name] += lines
        self.notices.post()

    async def read(self, name: str, *, follow: bool, tail: int | None) -> AsyncGenerator[str, None]:
        """Stream the lines that were written."""
        if name not in self.lines:
            raise NotFoundError(f"cannot read the log of {name}: nobody wrote it")
        lines = self.lines[name]
        position = 0 if tail is None else max(0, len(lines) - tail)
        while True:
            for line in lines[position:]:
                position += 1
                yield line
            if not follow or not self.writers[name]:
                return
            await self.notices.until(partial(self._more, name, position))

    def _more(self, name: str, position: int) -> bool:
        return len(self.lines[name]) > position or not self.writers[name]


class FakeJournal:
    """Keeps in memory what was written down."""

    def __init__(self) -> None:
        self.records: dict[str, JournalRecord] = {}
        """By UUID."""
        self.changes: list[Change] = []

    def record(self, record: JournalRecord, changes: Sequence[Change] = ()) -> None:
        """Write down a process as it is now."""
        self.records[record.process.uuid] = record
        self.changes += changes

    def forget(self, uuid: str, changes: Sequence[Change]) -> None:
        """Cross out a process of which nothing is left."""
        self.records.pop(uuid, None)
        self.changes += changes
