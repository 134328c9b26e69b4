"""Facts about processes, read from /proc (proc(5))."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

import psutil

NAME_VARIABLE = "INSTANCE_MANAGER_NAME"
UUID_VARIABLE = "INSTANCE_MANAGER_UUID"

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
    """The fields of /proc/PID/stat that are of use here."""

    command: str
    state: str
    session: int
    start_time: int
    """Clock ticks since boot."""


def read_stat(pid: int) -> Stat | None:
    """Return a process's facts, None if there is no such process."""
    text = _read(f"/proc/{pid}/stat")
    if not text:
        return None
    # The command stands in parentheses and may hold anything, parentheses and blanks too.
    head, _, tail = text.rpartition(b") ")
    fields = tail.split()
    command = head.partition(b"(")[2].decode(errors="replace")
    return Stat(command, fields[0].decode(), int(fields[3]), int(fields[19]))


def read_uuid(pid: int) -> str | None:
    """Return the UUID that a process carries in its environment, None if it carries none."""
    prefix = f"{UUID_VARIABLE}=".encode()
    for entry in _read(f"/proc/{pid}/environ").split(b"\0"):
        if entry.startswith(prefix):
            return entry.removeprefix(prefix).decode(errors="replace")
    return None


def describe(pid: int) -> str:
    """Say in words what a process is doing."""
    stat = read_stat(pid)
    if stat is None:
        return f"pid {pid} is gone"
    state = _STATES.get(stat.state, "unknown")
    where = _read(f"/proc/{pid}/wchan").decode(errors="replace").strip("0\n")
    return f"pid {pid} ({stat.command}) is in state {stat.state} ({state})" + (
        f" in {where}" if where else ""
    )


def own_children() -> list[int]:
    """Return the PIDs of this process's children, those it inherited as a subreaper too.

    The kernel gives orphans to a subreaper's main thread, and spawning is done there too, so its list is
    the whole list.
    """
    me = os.getpid()
    try:
        with Path(f"/proc/{me}/task/{me}/children").open("rb") as file:
            return [int(pid) for pid in file.read().split()]
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
        return [child.pid for child in psutil.Process(me).children()]


def _read(path: str) -> bytes:
    with contextlib.suppress(OSError), Path(path).open("rb") as file:
        return file.read()
    return b""
