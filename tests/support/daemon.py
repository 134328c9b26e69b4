"""The installed daemon as a separate process, and what a test needs to hold it to account."""

import asyncio
import contextlib
import functools
import json
import os
import signal
import socket
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any, Self, TypeVar

from instance_manager.client import DEFAULT_TIMEOUT, Client
from instance_manager.core.certificates import CertificateSet
from instance_manager.pb.imrpc import imrpc_pb2 as pb
from instance_manager.pb.instance_manager.v1 import events_pb2
from tests.support.cells import remove_cells
from tests.support.patience import patience

BIN = Path(sys.executable).parent / "instance-manager"
MARKER = "INSTANCE_MANAGER_TEST"
SLEEP = "/bin/sleep"

Line = TypeVar("Line")

SPAN = 1_500
"""Ports of one test process."""
LOCKS: list[socket.socket] = []
"""Held as long as this process lives."""


@functools.cache
def port_span() -> tuple[int, int]:
    """Return ports that no other test process on this machine uses: they are locked while this one lives.

    The lock is an abstract socket: it leaves no file, and belongs to no user. What a run that was interrupted
    has left, or another service, may listen on some; such a span is left out.
    """
    taken = listening()
    for first in range(10_000, 31_000, SPAN):
        if taken.intersection(range(first, first + SPAN)):
            continue
        lock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            lock.bind(f"\0instance-manager-test-ports-{first}")
        except OSError:
            lock.close()
            continue
        LOCKS.append(lock)
        return first, first + SPAN - 1
    raise RuntimeError("every span of ports is used by another test process or service")


def listening() -> set[int]:
    """Return the ports of this machine on which somebody listens."""
    tables = [Path("/proc/net", table).read_text() for table in ("tcp", "tcp6")]
    rows = [line.split() for table in tables for line in table.splitlines()]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A"}


def marked(marker: str) -> list[int]:
    """Return every process (zombies aside) that carries the marker in its environment."""
    wanted = f"{MARKER}={marker}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdecimal() and wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def sleeper(name: str, seconds: int = 1000, **fields: Any) -> pb.ProcessSpec:
    """Return the spec of a process that does nothing."""
    return pb.ProcessSpec(name=name, binary=SLEEP, args=[str(seconds)], **fields)


def stub(name: str, *options: str, ports: int = 1, kind: str = "replica") -> pb.ProcessSpec:
    """Return the spec of a stub instance that listens on its first port."""
    return pb.ProcessSpec(
        name=name,
        binary=str(BIN),
        args=["stub", kind, *options],
        port_count=ports,
        port_args=["--listen,127.0.0.1:"] if ports else [],
    )


def shell(name: str, script: str, **fields: Any) -> pb.ProcessSpec:
    """Return the spec of a process that runs a shell script."""
    return pb.ProcessSpec(name=name, binary="/bin/sh", args=["-c", script], **fields)


def refusal(err: str) -> str:
    """Return why a service did not start, from what it has written on stderr, where each line is JSON."""
    lines = [json.loads(line) for line in err.splitlines()]
    (told,) = [line for line in lines if line["event"] == "cannot start"]
    assert lines[-1] == told
    assert "\n" not in told["reason"]
    return str(told["reason"])


def log_line(raw: bytes) -> dict[str, Any]:
    """Return a line of a program's log; what is no JSON becomes its event, see `foreign`."""
    text = raw.decode(errors="replace").rstrip("\n")
    try:
        line: dict[str, Any] = json.loads(text)
    except ValueError:
        return {"event": text, "foreign": True}
    return line


def foreign(lines: Iterable[dict[str, Any]]) -> list[str]:
    """Return the lines of a program's log that are no JSON; there are to be none."""
    return [line["event"] for line in lines if "foreign" in line]


class Daemon:
    """A running daemon; every process it starts carries a marker, so that none can escape the test."""

    def __init__(self, folder: Path, *options: str, environment: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.logs = folder / "logs"
        self.marker = uuid.uuid4().hex
        self.url = f"unix://{folder}/im.sock"
        self.lines: list[dict[str, Any]] = []
        self.serving: list[dict[str, Any]] = []
        """The lines with which a daemon has begun to serve."""
        self.stdout: list[str] = []
        self._arrived = asyncio.Condition()
        self._options = options
        self.tls: CertificateSet | None = None
        """What clients show; plain text without."""
        self.prefix: tuple[str, ...] = (str(BIN),)
        """Program and first arguments to start it with."""
        self.metrics = ["--metrics-listen", "127.0.0.1:0"]
        """How to tell metrics, unless an option says otherwise; the default address is one for all tests."""
        self._environment = environment or {}
        self._readers: list[asyncio.Task[None]] = []
        self.process: asyncio.subprocess.Process

    @property
    def pid(self) -> int:
        return self.process.pid

    async def start(self) -> None:
        """Start it and wait until it serves."""
        listen = [] if "--listen" in self._options else ["--listen", self.url]
        state = [] if "--state-dir" in self._options else ["--state-dir", str(self.folder / "state")]
        logs = [] if "--logs-dir" in self._options else ["--logs-dir", str(self.logs)]
        ports = [] if "--port-range" in self._options else ["--port-range", "{}-{}".format(*port_span())]
        self.process = await asyncio.create_subprocess_exec(
            *(*self.prefix, "daemon", *listen, *ports, *logs, *state, *self.metrics, *self._options),
            env=os.environ | {MARKER: self.marker} | self._environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            stdin=asyncio.subprocess.DEVNULL,
        )
        self._readers = [asyncio.create_task(self._read_stderr()), asyncio.create_task(self._read_stdout())]
        serving = await self.logged(lambda line: line["event"] == "serving")
        if "--listen" in self._options:
            self.url = f"tcp://{serving['addresses'][0]}"

    async def http(self, path: str, method: str = "GET") -> tuple[int, str]:
        """Ask for metrics, liveness or readiness; return status and body."""
        line = await self.logged(lambda line: line["event"] == "metrics are served")
        host, _, port = line["addresses"][-1].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        async with asyncio.timeout(patience(20)):
            head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
        writer.close()
        return int(head.split(" ")[1]), body

    async def _read_stderr(self) -> None:
        assert self.process.stderr is not None
        async for raw in self.process.stderr:
            line = log_line(raw)
            async with self._arrived:
                self.lines.append(line)
                if line.get("event") == "serving":
                    self.serving.append(line)
                self._arrived.notify_all()

    async def _read_stdout(self) -> None:
        assert self.process.stdout is not None
        async for raw in self.process.stdout:
            async with self._arrived:
                self.stdout.append(raw.decode(errors="replace").rstrip("\n"))
                self._arrived.notify_all()

    async def logged(self, wanted: Callable[[dict[str, Any]], bool], within: float = 20) -> dict[str, Any]:
        """Wait for a line of the daemon's own log."""
        return await self._await(lambda: next(filter(wanted, self.lines), None), within)

    async def echoed(self, wanted: Callable[[str], bool], within: float = 20) -> str:
        """Wait for a line on the daemon's stdout."""
        return await self._await(lambda: next(filter(wanted, self.stdout), None), within)

    async def _await(self, look: Callable[[], Line | None], within: float) -> Line:
        try:
            async with asyncio.timeout(patience(within)), self._arrived:
                while (found := look()) is None:
                    await self._arrived.wait()
        except TimeoutError:
            raise AssertionError(f"not seen; log {self.lines[-20:]}, stdout {self.stdout[-20:]}") from None
        return found

    def client(self) -> Client:
        return Client(self.url, self.tls, timeout=patience(DEFAULT_TIMEOUT))

    async def stop(self, number: signal.Signals = signal.SIGTERM, within: float = 30) -> int:
        """Send a signal and return the exit status."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        return await self.ended(within)

    async def ended(self, within: float = 30) -> int:
        """Wait for the end and return the exit status."""
        async with asyncio.timeout(patience(within)):
            status = await self.process.wait()
            await asyncio.gather(*self._readers)
        return status

    def descendants(self) -> list[int]:
        """Return every process that the daemon started, directly or not."""
        return [pid for pid in marked(self.marker) if pid != self.process.pid]

    async def has_descendants(self, count: int, within: float = 10) -> None:
        """Wait until the daemon has so many: a process shows no environment in the middle of its execve."""
        async with self.client() as client, asyncio.timeout(patience(within)):
            while len(self.descendants()) != count:
                await client.health()

    async def clean_up(self) -> list[int]:
        """End the daemon if it runs; return, and end, what it has left behind."""
        # Without one it never got so far; why is what the test is to tell.
        process: asyncio.subprocess.Process | None = getattr(self, "process", None)
        if process is not None and process.returncode is None:
            await self.stop()
        left = marked(self.marker)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert await remove_cells(self.lines) == []
        return left


@contextlib.asynccontextmanager
async def running_daemon(
    folder: Path, *options: str, environment: dict[str, str] | None = None
) -> AsyncIterator[Daemon]:
    """Run a daemon for the time of the block and check that nothing outlives it."""
    daemon = Daemon(folder, *options, environment=environment)
    try:
        await daemon.start()
        yield daemon
    finally:
        left = await daemon.clean_up()
    assert left == [], f"processes outlived the daemon: {left}"
    assert foreign(daemon.lines) == []


class Watch:
    """Collects what ProcessWatch tells, in the background."""

    def __init__(self, client: Client) -> None:
        self.seen: list[pb.ProcessResponse] = []
        self._stream = client.process_watch()
        self._arrived = asyncio.Condition()
        self._task: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        await self._stream.accepted()
        self._task = asyncio.create_task(self._collect())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stream.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await self._task

    async def _collect(self) -> None:
        async for change in self._stream:
            async with self._arrived:
                self.seen.append(change)
                self._arrived.notify_all()

    async def until(
        self, wanted: Callable[[list[pb.ProcessResponse]], bool], within: float = 20
    ) -> list[pb.ProcessResponse]:
        """Wait until what has been seen meets a condition."""
        try:
            async with asyncio.timeout(patience(within)), self._arrived:
                await self._arrived.wait_for(lambda: wanted(self.seen))
        except TimeoutError:
            raise AssertionError(f"not seen: {[summary(c) for c in self.seen[-30:]]}") from None
        return self.seen

    async def state(self, name: str, state: str, within: float = 20) -> pb.ProcessResponse:
        """Wait until a process of this name has been in this state (`deleted` for its end)."""

        def matches(change: pb.ProcessResponse) -> bool:
            told = "deleted" if change.deleted else change.status.state
            return bool(change.spec.name == name and told == state)

        looked = 0

        def arrived(seen: list[pb.ProcessResponse]) -> bool:
            nonlocal looked
            begin, looked = looked, len(seen)
            return any(map(matches, seen[begin:]))

        seen = await self.until(arrived, within)
        return next(filter(matches, reversed(seen)))

    def states(self, uuid: str) -> list[str]:
        """Return the states told about one process, in order."""
        return self.lives().get(uuid, [])

    def lives(self) -> dict[str, list[str]]:
        """Return the states told about each process, in order, by UUID."""
        lives: dict[str, list[str]] = {}
        for c in self.seen:
            lives.setdefault(c.status.uuid, []).append("deleted" if c.deleted else c.status.state)
        return lives


async def event_of(
    client: Client, wanted: Callable[[events_pb2.Event], bool], since: int = 0
) -> events_pb2.Event:
    """Wait for an event since a revision; EventService tells those of unlisted processes, too."""
    async with asyncio.timeout(patience(20)):
        async for event in client.events(since=since):
            if isinstance(event, events_pb2.Event) and wanted(event):
                return event
    raise AssertionError("the events have ended")


async def newcomer(client: Client, old: str) -> events_pb2.Event:
    """Wait until a process has started beside the one with this UUID, and return its first event."""
    return await event_of(client, lambda event: event.instance.uuid != old)


async def live(client: Client, watch: Watch, name: str) -> str:
    """Take a process from its creation to its end and return its UUID."""
    uuid = (await client.process_create(sleeper(name))).status.uuid
    await watch.state(name, "running")
    await client.process_delete(name, uuid)
    await watch.state(name, "deleted")
    return uuid


def summary(change: pb.ProcessResponse) -> str:
    """Return a change in a few words."""
    status = change.status
    return f"{change.spec.name} {status.state}{status.error_msg}{' deleted' if change.deleted else ''}"


def unique(values: Iterable[Any]) -> bool:
    """Tell whether no value appears twice."""
    listed = list(values)
    return len(listed) == len(set(listed))
