"""Facts about processes, read from /proc (proc(5)).

"There is no such process" and "this cannot be read" are different answers everywhere: the second one is an
`UnreadableError` and says nothing about the process. Reading `stat`, `status` and `wchan` never blocks.
Reading `environ` and `cmdline` takes the memory lock of that process and can hang as long as the process
does, so the functions for those are run by `platform.reading.BoundedReader` only.
"""

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

from instance_manager.platform.contract import UUID_VARIABLE

_CHUNK = 1 << 16
_TICKS = os.sysconf("SC_CLK_TCK")
_KERNEL_THREAD = 0x200000  # PF_KTHREAD
_NO_SUCH_PROCESS = {errno.ENOENT, errno.ESRCH}
_STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "uninterruptible sleep, usually waiting for a disk or the network",
    "T": "stopped by a signal",
    "t": "stopped by a debugger",
    "Z": "zombie",
}


class UnreadableError(Exception):
    """A fact about a process cannot be read; the message says why."""

    def __init__(self, reason: str, *, passing: bool = False) -> None:
        super().__init__(reason)
        self.passing = passing
        """Whether it can be read in a moment: the process is in the middle of an execve or an exit."""


class OverwrittenError(UnreadableError):
    """A process has overwritten its environment, for example with its title."""


@dataclass(frozen=True, slots=True)
class Stat:
    """The fields of /proc/PID/stat that are used here."""

    command: str
    state: str
    parent: int
    session: int
    start_time: int
    """Clock ticks since boot."""
    threads: int
    kernel_thread: bool
    environment: tuple[int, int]
    """Start and end of the environment in memory; the end is 0 during an execve."""

    @property
    def ended(self) -> bool:
        """Whether all of it has ended; a zombie may be just the first of several threads."""
        return self.state in "ZX" and self.threads <= 1

    @property
    def age(self) -> float:
        """Seconds since its start."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self.start_time / _TICKS


def read_stat(pid: int) -> Stat | None:
    """Return the stat of a process, None if there is no such process.

    Raises:
        UnreadableError: if it cannot be read.
    """
    text = _read(f"/proc/{pid}/stat")
    if text is None:
        return None
    # The command is in parentheses and may contain anything, even parentheses and blanks.
    head, _, tail = text.rpartition(b") ")
    fields = tail.split()
    try:
        return Stat(
            command=head.partition(b"(")[2].decode(errors="replace"),
            state=fields[0].decode(),
            parent=int(fields[1]),
            session=int(fields[3]),
            start_time=int(fields[19]),
            threads=int(fields[17]),
            kernel_thread=bool(int(fields[6]) & _KERNEL_THREAD),
            environment=(int(fields[47]), int(fields[48])),
        )
    except (IndexError, ValueError) as error:
        raise UnreadableError(f"/proc/{pid}/stat is cut short") from error


def read_user(pid: int) -> int | None:
    """Return the real user ID of a process, None if there is no such process.

    Not the owner of /proc/PID, which the process can change itself (PR_SET_DUMPABLE).

    Raises:
        UnreadableError: if it cannot be read.
    """
    text = _read(f"/proc/{pid}/status")
    if text is None:
        return None
    for line in text.splitlines():
        if line.startswith(b"Uid:"):
            return int(line.split()[1])
    raise UnreadableError(f"/proc/{pid}/status is cut short")


def read_environment(pid: int) -> dict[str, str]:
    """Return the environment that a process was started with. This can hang.

    Raises:
        UnreadableError: if it cannot be read, or is not what it was: a process can overwrite it.
    """
    # None too if just its first thread has ended.
    text = _read(f"/proc/{pid}/environ") or b""
    # After the environment: otherwise an execve in between would look like an empty environment.
    stat = read_stat(pid)
    if stat is None:
        raise UnreadableError("it has ended", passing=True)
    if not text and stat.state == "Z":
        text = _environment_of_threads(pid)
    if not text and not stat.kernel_thread:
        begin, end = stat.environment
        if begin != end or end == 0:
            raise UnreadableError("its environment cannot be seen now", passing=True)
        # Also for a moment near the end of an execve.
        raise OverwrittenError("it shows no environment", passing=True)
    entries = text.split(b"\0")
    pairs = [entry.partition(b"=") for entry in entries[:-1]]
    found = {key.decode(errors="replace"): value.decode(errors="replace") for key, _, value in pairs}
    # One that has the UUID is ours, whatever else was overwritten.
    if UUID_VARIABLE not in found and (entries[-1] or not all(key and is_ for key, is_, _ in pairs)):
        raise OverwrittenError("it has overwritten its environment")
    return found


def read_uuid(pid: int, start_time: int) -> str | None:
    """Return the UUID in the environment of a process, None if there is none. This can hang.

    Raises:
        UnreadableError: as `read_environment`, or if another process has its PID by now.
    """
    uuid = read_environment(pid).get(UUID_VARIABLE)
    stat = read_stat(pid)
    if stat is None or stat.start_time != start_time:
        raise UnreadableError("it has ended", passing=True)
    return uuid


def read_command(pid: int) -> tuple[str, ...]:
    """Return the command line of a process. This can hang.

    Raises:
        UnreadableError: if it cannot be read.
    """
    text = _read(f"/proc/{pid}/cmdline")
    if text is None:
        raise UnreadableError("it has ended", passing=True)
    return tuple(word.decode(errors="surrogateescape") for word in text.split(b"\0")[:-1])


def describe(pid: int) -> str:
    """Return in words what a process is doing; 0 stands for one that cannot be seen from here."""
    if pid == 0:
        return "a process of another PID namespace, which cannot be seen here"
    try:
        stat = read_stat(pid)
    except UnreadableError as error:
        return f"pid {pid}, of which nothing can be read: {error}"
    if stat is None:
        return f"pid {pid} is gone"
    state = _STATES.get(stat.state, "unknown")
    where = b""
    with contextlib.suppress(UnreadableError):
        where = _read(f"/proc/{pid}/wchan") or b""
    place = where.decode(errors="replace").strip().strip("0")
    if stat.state == "Z" and (tracer := _tracer(pid)):
        place = f"the hands of its debugger, pid {tracer}"
    place = place and f" in {place}"
    return f"pid {pid} ({stat.command}) is in state {stat.state} ({state}){place}"


def all_processes() -> list[int]:
    """Return the PIDs of all processes.

    Raises:
        UnreadableError: if /proc cannot be listed.
    """
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208 - paths cost
    except OSError as error:
        raise UnreadableError(f"/proc cannot be listed: {error.strerror}") from error


def children_of(pid: int) -> list[int]:
    """Return the PIDs of the children of a process, including those inherited as a subreaper.

    The main thread's list is complete: the kernel gives orphans to a subreaper's main thread, and the daemon
    spawns in its own.

    Raises:
        UnreadableError: if they cannot be listed.
    """
    text = _read(f"/proc/{pid}/task/{pid}/children")
    if text is not None:
        return [int(child) for child in text.split()]
    # A kernel without CONFIG_PROC_CHILDREN, or it has ended.
    stats = {child: read_stat(child) for child in all_processes()}
    return [child for child, stat in stats.items() if stat and stat.parent == pid]


Key = tuple[int, int]
"""PID and start time."""


def exists(key: Key) -> bool:
    """Return whether a process exists, if only as a zombie.

    Raises:
        UnreadableError: if that cannot be read.
    """
    stat = read_stat(key[0])
    return stat is not None and stat.start_time == key[1]


def tree(leader: int) -> Iterator[int]:
    """Yield a process, its descendants that have a living parent among these, and its session.

    Raises:
        UnreadableError: if that cannot be read.
    """
    seen = {leader}
    yield leader
    pending = [leader]
    while pending:
        fresh = set(children_of(pending.pop())) - seen
        seen |= fresh
        pending.extend(fresh)
        yield from fresh
    for pid in all_processes():
        if pid not in seen and (stat := read_stat(pid)) and stat.session == leader:
            yield pid


def _tracer(pid: int) -> int:
    with contextlib.suppress(UnreadableError):
        for line in (_read(f"/proc/{pid}/status") or b"").splitlines():
            if line.startswith(b"TracerPid:"):
                return int(line.split()[1])
    return 0


def _environment_of_threads(pid: int) -> bytes:
    with contextlib.suppress(OSError, UnreadableError):
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - as above
            if environment := _read(f"/proc/{pid}/task/{thread}/environ"):
                return environment
    return b""


def _read(path: str) -> bytes | None:
    """Return the content of a file, None if there is no such process; uses system calls as it runs often.

    Raises:
        UnreadableError: if it cannot be read.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            content = os.read(fd, _CHUNK)
            while content and (more := os.read(fd, _CHUNK)):
                content += more
            return content
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno in _NO_SUCH_PROCESS:
            return None
        raise UnreadableError(f"{path} cannot be read: {error.strerror}") from error
