"""A guard as a separate process, and what a test needs to hold it to account."""

import asyncio
import contextlib
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from asyncinotify import Inotify, Mask

from tests.support.cells import remove_cells
from tests.support.daemon import BIN, MARKER, foreign, log_line, marked
from tests.support.patience import patience

PROGRAM = (sys.executable, str(Path(__file__).with_name("guard_program.py")))
STUB = ("stub", "replica", "--listen", "127.0.0.1:0")
PLAIN = ("env", "--default-signal=HUP")
"""What a guard is executed by: the tests themselves may run under nohup."""
WITHIN = patience(20.0)
"""Seconds that anything may take."""

Found = TypeVar("Found")


class Guard:
    """A running guard; all that it starts carries a marker, so that nothing can escape the test."""

    def __init__(self, state_dir: Path) -> None:
        self.exits = state_dir / "exits"
        self.marker = uuid.uuid4().hex
        self.lines: list[dict[str, Any]] = []
        self.stdout: list[str] = []
        self._arrived = asyncio.Condition()
        self._readers: list[asyncio.Task[None]] = []
        self.process: asyncio.subprocess.Process

    async def start(
        self,
        command: Sequence[str],
        *,
        environment: dict[str, str] | None = None,
        stderr: int | None = None,
        through: Sequence[str] = PLAIN,
    ) -> None:
        """Start it, with pipes that its end does not depend on: orphans may hold them open.

        Args:
            command: what to start.
            environment: variables besides those of the tests.
            stderr: where its log goes; to `lines` if None.
            through: a program that executes the command in another state than this one's: what is done
                between a fork and an exec stumbles over the threads of gRPC now and then.
        """
        stdout = await self._pipe(self.stdout.append)
        own_stderr = await self._pipe(self._take_stderr) if stderr is None else -1
        self.process = await asyncio.create_subprocess_exec(
            *through,
            *command,
            env=os.environ | {MARKER: self.marker} | (environment or {}),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=stdout,
            stderr=own_stderr if stderr is None else stderr,
        )
        for writer in {stdout, own_stderr} - {-1}:
            os.close(writer)

    async def _pipe(self, take: Callable[[str], None]) -> int:
        """Return the end to write to of a pipe whose lines are taken in the background."""
        read_end, write_end = os.pipe()
        stream = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(read_end, "rb")
        )
        self._readers.append(asyncio.create_task(self._read(stream, take)))
        return write_end

    async def _read(self, stream: asyncio.StreamReader, take: Callable[[str], None]) -> None:
        async for raw in stream:
            async with self._arrived:
                take(raw.decode().rstrip("\n"))
                self._arrived.notify_all()

    def _take_stderr(self, text: str) -> None:
        self.lines.append(log_line(text.encode()))

    @property
    def pid(self) -> int:
        return self.process.pid

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        """Return the guard's own lines of these kinds so far."""
        return [line for line in self.lines if line["event"] in kinds and line.get("logger") == "guard"]

    async def logged(self, event: str, count: int = 1) -> dict[str, Any]:
        """Wait for the guard's line of this kind, the count-th of them."""
        return (await self.seen(lambda: self.events(event)[count - 1 : count] or None))[0]

    async def started(self, count: int = 1) -> int:
        """Wait for the count-th start, and return the PID of what was started."""
        return int((await self.logged("daemon started", count))["daemon"])

    async def serving(self, count: int = 1) -> int:
        """Wait until the count-th daemon serves, and return its PID."""
        return (await self.seen(lambda: self.served[count - 1 :] or None))[0]

    @property
    def served(self) -> list[int]:
        """The PIDs of the daemons that have begun to serve."""
        return [line["pid"] for line in self.lines if line["event"] == "serving"]

    async def printed(self, words: str, count: int = 1) -> list[str]:
        """Wait until so many lines with these words have come from what is guarded, and return them."""

        def look() -> list[str] | None:
            found = [line for line in self.stdout if words in line]
            return found if len(found) >= count else None

        return await self.seen(look)

    async def seen(self, look: Callable[[], Found | None]) -> Found:
        try:
            async with asyncio.timeout(WITHIN), self._arrived:
                while (found := look()) is None:
                    await self._arrived.wait()
        except TimeoutError:
            raise AssertionError(f"not seen; log {self.lines[-20:]}, stdout {self.stdout[-20:]}") from None
        return found

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Wait for the guard's end and return its exit code."""
        async with asyncio.timeout(WITHIN):
            return await self.process.wait()

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.send(number)
        return await self.ended()

    def children(self) -> list[int]:
        """Return the PIDs of its children, zombies included."""
        return children_of(self.pid)

    def records(self) -> dict[str, str]:
        """Return what the records say, by their names."""
        return {path.name: path.read_text() for path in self.exits.iterdir() if path.name[0].isdecimal()}

    def resident_kib(self) -> int:
        return int(status(self.pid)["VmRSS"].split()[0])

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    async def clean_up(self) -> list[int]:
        """Kill the guard and what is left; return what is."""
        if self.process.returncode is None:
            self.send(signal.SIGKILL)
        await self.ended()
        left = marked(self.marker)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(WITHIN):
            await asyncio.gather(*self._readers)
        assert await remove_cells(self.lines) == []
        return left


@contextlib.asynccontextmanager
async def guarding(
    state_dir: Path,
    *command: str,
    options: Sequence[str] = (),
    program: Sequence[str] = (str(BIN),),
    environment: dict[str, str] | None = None,
    stderr: int | None = None,
    through: Sequence[str] = PLAIN,
) -> AsyncIterator[Guard]:
    """Guard a command for the time of the block; the block has to see to it that nothing is left."""
    guard = Guard(state_dir)
    whole = (*program, "guard", "--state-dir", str(state_dir), *options, "--", *command)
    try:
        await guard.start(whole, environment=environment, stderr=stderr, through=through)
        yield guard
        assert guard.process.returncode is not None, "the guard was not ended"
    finally:
        left = await guard.clean_up()
    assert left == [], f"processes outlived the guard: {left}"
    assert foreign(guard.lines) == []


class Arrivals:
    """Tells which records have been written since its making."""

    def __init__(self, folder: Path) -> None:
        self.seen: list[str] = []
        self._inotify = Inotify()
        self._inotify.add_watch(folder, Mask.MOVED_TO)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._inotify.close()

    async def until(self, enough: Callable[[list[str]], bool]) -> list[str]:
        """Wait until the names seen are enough, and return them."""
        async with asyncio.timeout(WITHIN):
            while not enough(self.seen):
                self.seen.append(str((await self._inotify.get()).name))
        return self.seen


def record_name(pid: int) -> str:
    """Return what the record of a process will be called."""
    return f"{pid}.{Path(f'/proc/{pid}/stat').read_text().rpartition(') ')[2].split()[19]}"


def status(pid: int) -> dict[str, str]:
    """Return the lines of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def helpers(lines: Sequence[str]) -> list[int]:
    """Return the PIDs of the orphans that a stub tells of."""
    return [int(line.partition("pid=")[2]) for line in lines]


async def gone(pids: Iterable[int]) -> None:
    """Wait until processes have ended, if only as zombies."""
    loop = asyncio.get_running_loop()
    for pid in pids:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        ended = asyncio.Event()
        loop.add_reader(pidfd, ended.set)
        try:
            async with asyncio.timeout(WITHIN):
                await ended.wait()
        finally:
            loop.remove_reader(pidfd)
            os.close(pidfd)


def children_of(pid: int) -> list[int]:
    """Return the PIDs of a process's children, zombies included."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def strings(pid: int, file: str) -> list[str]:
    """Return what a file of /proc/PID lists, each item ended by a zero."""
    return Path(f"/proc/{pid}/{file}").read_text().split("\0")[:-1]


def cpu_ticks(pid: int) -> int:
    """Return the CPU time that a process has used, in clock ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return int(fields[11]) + int(fields[12])


async def reached(look: Callable[[], bool]) -> None:
    """Wait until something is so that nothing tells of."""
    async with asyncio.timeout(WITHIN):
        while not look():  # noqa: ASYNC110
            await asyncio.sleep(0)
