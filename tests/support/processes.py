"""Real processes and log files without the daemon around them, and what an event loop suffers."""

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from instance_manager.adapters.logs import LogFiles
from instance_manager.adapters.process import OsProcessAdopter, ProcessSpawner, Reaper, SessionContainment
from instance_manager.app.containment import Containment
from instance_manager.app.interfaces import Child, SpawnRequest
from instance_manager.core.log_retention import LogLimits
from instance_manager.core.process import ExitStatus
from instance_manager.platform import proc
from tests.support.daemon import MARKER, marked
from tests.support.patience import patience

_PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 36, 37
DEADLINE = patience(20.0)


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until a condition holds of which no event tells."""
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - no event, as it says
            await asyncio.sleep(0.01)


class Output:
    """What processes write to a pipe."""

    def __init__(self) -> None:
        reading, self.fd = os.pipe()
        self._pipe = os.fdopen(reading, "rb", buffering=0)
        self._stream = asyncio.StreamReader()

    async def open(self) -> None:
        self._transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(self._stream), self._pipe
        )

    def close(self) -> None:
        self._transport.close()
        os.close(self.fd)

    async def line(self) -> str:
        """Wait for the next line."""
        async with asyncio.timeout(DEADLINE):
            return (await self._stream.readline()).decode().rstrip("\n")

    async def ended(self) -> bytes:
        """Wait until nobody holds the other end any more; return what was left to read."""
        os.close(self.fd)
        self.fd = os.open(os.devnull, os.O_WRONLY)
        async with asyncio.timeout(DEADLINE):
            return await self._stream.read()


class Started:
    """A process that was spawned, and what was reported of its end."""

    def __init__(self, order: SpawnRequest) -> None:
        self.uuid = order.uuid
        self.reports: list[ExitStatus] = []
        self._exited = asyncio.Event()
        self.child: Child

    @property
    def pid(self) -> int:
        return self.child.identity.pid

    def report(self, status: ExitStatus) -> None:
        self.reports.append(status)
        self._exited.set()

    async def exited(self, within: float = 20) -> ExitStatus:
        """Wait for the end."""
        async with asyncio.timeout(patience(within)):
            await self._exited.wait()
        return self.reports[0]


class Workshop:
    """A spawner that is open, and the pipe that its processes write to."""

    def __init__(
        self, spawner: ProcessSpawner, containment: Containment, output: Output, marker: str
    ) -> None:
        self.spawner = spawner
        self.containment = containment
        self.output = output
        self.marker = marker
        self.started: list[Started] = []

    async def reaped(self, pid: int) -> None:
        """Wait until a descendant has ended and nothing is left of it, not even a zombie."""
        async with asyncio.timeout(DEADLINE):
            while True:
                if not exists(pid):
                    return
                await asyncio.sleep(0.001)

    def spawn(self, *command: str, output: int | None = None, name: str = "one") -> Started:
        order = SpawnRequest(
            name=name,
            uuid=str(uuid.uuid4()),
            command=command,
            recovery_metadata="",
            output=self.output.fd if output is None else output,
        )
        started = Started(order)
        started.child = self.spawner.spawn(order, started.report)
        self.started.append(started)
        return started

    def shell(self, script: str) -> Started:
        """Start a shell script."""
        return self.spawn("/bin/sh", "-c", script)

    async def end(self) -> None:
        """Kill what was started and wait until it has ended."""
        for started in self.started:
            started.child.signal("SIGKILL", session=True)
        for started in self.started:
            await started.exited()

    def marked(self) -> list[int]:
        """Return every process started here that lives, directly or not."""
        return [pid for pid in marked(self.marker) if pid != os.getpid()]


async def pid_told(workshop: Workshop) -> int:
    """Wait until a process has written its PID to the pipe of a workshop."""
    return int(await workshop.output.line())


def raising(error: Exception) -> Callable[..., Any]:
    """Return a function that takes anything and raises an error."""

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


MakeContainment = Callable[[Reaper], Containment]


def by_session(reaper: Reaper) -> SessionContainment:
    """Return the containment that works without help of the kernel."""
    return SessionContainment(reaper, "the test", None)


def an_adopter(exits: Path, guard: int | None = None, *, owner: str = "the test") -> OsProcessAdopter:
    """Return an adopter of what was started without help of the kernel."""
    return OsProcessAdopter(exits, guard, SessionContainment(Reaper(), owner, guard))


@contextlib.asynccontextmanager
async def open_workshop(
    environment: Mapping[str, str] | None = None,
    *,
    roots: Sequence[Path] = (),
    contained: MakeContainment = by_session,
) -> AsyncIterator[Workshop]:
    """Open a spawner for the time of the block; undo what it does to this process, and leave nothing."""
    libc = ctypes.CDLL(None)
    was_subreaper = ctypes.c_int()
    libc.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(was_subreaper), 0, 0, 0)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    handler = signal.getsignal(signal.SIGCHLD)
    marker = uuid.uuid4().hex
    output = Output()
    await output.open()
    reaper = Reaper()
    containment = contained(reaper)
    spawner = ProcessSpawner(
        {**(os.environ if environment is None else environment), MARKER: marker},
        owner="the test",
        roots=roots,
        containment=containment,
        reaper=reaper,
    )
    reaper.open()
    spawner.open()
    workshop = Workshop(spawner, containment, output, marker)
    try:
        yield workshop
    finally:
        left = workshop.marked()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        spawner.close()
        containment.close()
        reaper.close()
        _reap_all()
        output.close()
        libc.prctl(_PR_SET_CHILD_SUBREAPER, was_subreaper.value, 0, 0, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    assert signal.getsignal(signal.SIGCHLD) == handler
    assert left == [], f"processes outlived the test: {left}"


def _reap_all() -> None:
    """Kill and wait for every child, also one that hides its marker."""
    while children := proc.children_of(os.getpid()):
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_ALL, 0, os.WEXITED)


def lives(pid: int) -> bool:
    """Tell whether there is such a process, no zombie."""
    stat = proc.read_stat(pid)
    return stat is not None and stat.state != "Z"


def exists(pid: int) -> bool:
    """Tell whether there is such a process, if only as a zombie."""
    return proc.read_stat(pid) is not None


def wait_for(pid: int, flags: int) -> None:
    """Block, event loop and all, until something has happened to a child."""
    os.waitid(os.P_PID, pid, flags)


class LagMeter:
    """Finds out how much of the processor the event loop uses at most before it takes its next turn.

    Wall time would tell of the machine: of what else runs here, and of pauses that nobody counts.
    """

    _PERIOD = 0.005

    @contextlib.contextmanager
    def measuring(self) -> Iterator[None]:
        self.longest = 0.0
        self._next()
        try:
            yield
        finally:
            self._note()
            self._handle.cancel()

    def _tick(self) -> None:
        self._note()
        self._next()

    def _next(self) -> None:
        self._before = time.thread_time()
        self._handle = asyncio.get_running_loop().call_later(self._PERIOD, self._tick)

    def _note(self) -> None:
        self.longest = max(self.longest, time.thread_time() - self._before)


def ticks(pid: int) -> int:
    stat = proc.read_stat(pid)
    assert stat is not None
    return stat.start_time


def waited_for_processor(*others: int) -> float:
    """Return how many seconds a thread could not run because others did, here or on other machines.

    Args:
        others: PIDs of processes whose first threads count, too.
    """
    waited = 0.0
    for thread in ("thread-self", *map(str, others)):
        with contextlib.suppress(OSError):  # a kernel that does not count, or one that has ended
            waited += int(Path(f"/proc/{thread}/schedstat").read_text().split()[1]) / 1e9
    with Path("/proc/stat").open() as file:
        return waited + int(file.readline().split()[8]) / os.sysconf("SC_CLK_TCK")


def descriptors(pid: int | str = "self") -> dict[int, str]:
    """Return what a process has open."""
    found = {}
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # the one that lists them
            found[int(path.name)] = str(path.readlink())
    return found


@contextlib.asynccontextmanager
async def open_logs(
    directory: Path, *, max_size: int = 8 << 20, echo: int | None = None, keep: LogLimits | None = None
) -> AsyncIterator[LogFiles]:
    """Follow the logs in a directory for the time of the block; no descriptor may be left."""
    before = descriptors()
    logs = LogFiles(directory, max_size=max_size, echo=echo, keep=keep)
    logs.open()
    try:
        yield logs
    finally:
        await logs.close()
    left = {fd: target for fd, target in descriptors().items() if before.get(fd) != target}
    left = {fd: target for fd, target in left.items() if "socket:" not in target}  # the event loop's own
    assert left == {}


StartWild = Callable[[LogFiles, str], subprocess.Popen[bytes]]


async def ended(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end, and wait for it."""
    process.terminate()
    await asyncio.to_thread(process.wait, DEADLINE)
