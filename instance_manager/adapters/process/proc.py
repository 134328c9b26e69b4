"""Facts about processes, read from /proc (proc(5))."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

import psutil

from instance_manager.platform.contract import UUID_VARIABLE

_CHUNK = 1 << 16
_STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "uninterruptible sleep, usually waiting for a disk or the network",
    "T": "stopped by a signal",
    "t": "stopped by a debugger",
    "Z": "zombie",
}


@dataclass(frozen=True, slots=True)
class Stat:
    """The fields of /proc/PID/stat that are used here."""

    command: str
    state: str
    session: int
    start_time: int
    """Clock ticks since boot."""
    environment: tuple[int, int]
    """Start and end of the environment in memory; the end is 0 during an execve."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """What shows where a process comes from."""

    session: int
    uuid: str | None
    """The UUID in its environment, None if there is none."""
    settled: bool
    """False during an execve or an exit, when the environment cannot be read."""
    ended: bool
    """Whether it has ended, or at least its first thread."""


def read_stat(pid: int) -> Stat | None:
    """Return the stat of a process, None if there is no such process."""
    text = _read(f"/proc/{pid}/stat")
    if not text:
        return None
    # The command is in parentheses and may contain anything, even parentheses and blanks.
    head, _, tail = text.rpartition(b") ")
    fields = tail.split()
    return Stat(
        command=head.partition(b"(")[2].decode(errors="replace"),
        state=fields[0].decode(),
        session=int(fields[3]),
        start_time=int(fields[19]),
        environment=(int(fields[47]), int(fields[48])),
    )


def read_provenance(pid: int) -> Provenance | None:
    """Return where a process comes from, None if there is no such process."""
    environment, readable = b"", True
    try:
        with Path(f"/proc/{pid}/environ").open("rb") as file:
            environment = file.read()
    except PermissionError:  # it runs as somebody else
        readable = False
    except OSError:  # it has ended, or just its first thread
        pass
    # After the environment: otherwise an execve in between would look like an empty environment.
    stat = read_stat(pid)
    if stat is None:
        return None
    if stat.state == "Z" and not environment:
        environment = _environment_of_threads(pid)
    begin, end = stat.environment
    settled = bool(environment) or not readable or begin == end != 0
    return Provenance(stat.session, _uuid_in(environment), settled=settled, ended=stat.state == "Z")


def read_user(pid: int) -> int | None:
    """Return the real user ID of a process, None if there is no such process.

    Not the owner of /proc/PID, which the process can change itself (PR_SET_DUMPABLE).
    """
    for line in _read(f"/proc/{pid}/status").splitlines():
        if line.startswith(b"Uid:"):
            return int(line.split()[1])
    return None


def read_environment(pid: int) -> dict[str, str]:
    """Return the environment of a process, empty if it cannot be read."""
    entries = (entry.partition(b"=") for entry in _read(f"/proc/{pid}/environ").split(b"\0") if entry)
    return {key.decode(errors="replace"): value.decode(errors="replace") for key, _, value in entries}


def read_command(pid: int) -> tuple[str, ...]:
    """Return the command line of a process, empty if it cannot be read."""
    words = _read(f"/proc/{pid}/cmdline").split(b"\0")
    return tuple(word.decode(errors="surrogateescape") for word in words[:-1])


def describe(pid: int) -> str:
    """Return in words what a process is doing."""
    stat = read_stat(pid)
    if stat is None:
        return f"pid {pid} is gone"
    state = _STATES.get(stat.state, "unknown")
    where = _read(f"/proc/{pid}/wchan").decode(errors="replace").strip()
    return f"pid {pid} ({stat.command}) is in state {stat.state} ({state})" + (
        f" in {where}" if where.strip("0") else ""
    )


def children_of(pid: int) -> list[int]:
    """Return the PIDs of the children of a process, including those inherited as a subreaper.

    The main thread's list is complete: the kernel gives orphans to a subreaper's main thread, and the daemon
    and the guard spawn in theirs.
    """
    try:
        with Path(f"/proc/{pid}/task/{pid}/children").open("rb") as file:
            return [int(child) for child in file.read().split()]
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN, or it has ended
        with contextlib.suppress(psutil.NoSuchProcess):
            return [child.pid for child in psutil.Process(pid).children()]
        return []


def all_processes() -> list[int]:
    """Return the PIDs of all processes."""
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]


def _environment_of_threads(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        for path in Path(f"/proc/{pid}/task").iterdir():
            if environment := _read(f"{path}/environ"):
                return environment
    return b""


def _uuid_in(environment: bytes) -> str | None:
    prefix = f"{UUID_VARIABLE}=".encode()
    for entry in environment.split(b"\0"):
        if entry.startswith(prefix):
            return entry.removeprefix(prefix).decode(errors="replace")
    return None


def _read(path: str) -> bytes:
    """Return the content of a file; uses system calls as it runs at every start and end of a process."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            content = os.read(fd, _CHUNK)
            while content and (more := os.read(fd, _CHUNK)):
                content += more
            return content
        finally:
            os.close(fd)
    return b""
