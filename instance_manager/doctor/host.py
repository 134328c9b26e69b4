"""What can be seen of the machine: ports and limits."""

import resource
from collections.abc import Iterator
from pathlib import Path

_TCP_LISTEN = "0A"  # the state in /proc/net/tcp


def ephemeral_ports() -> tuple[int, int]:
    """Return the first and the last port that the system gives to outgoing connections."""
    text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii")
    first, last = map(int, text.split())
    return first, last


def listening_ports() -> set[int]:
    """Return the TCP ports on which anybody listens."""
    found = set()
    for name in ("tcp", "tcp6"):
        path = Path("/proc/net") / name
        if path.exists():
            for line in path.read_text(encoding="ascii").splitlines()[1:]:
                _, local, _, state, *_ = line.split()
                if state == _TCP_LISTEN:
                    found.add(int(local.rpartition(":")[2], 16))
    return found


def limits(daemon: int | None) -> Iterator[tuple[str, int]]:
    """Yield each limit of a process, or else of this one, with its name; a negative one is no limit."""
    try:
        files = resource.prlimit(daemon or 0, resource.RLIMIT_NOFILE)[1]
    except OSError:  # of another user, or just gone
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    yield "open files", files
    yield "PIDs", int(Path("/proc/sys/kernel/pid_max").read_text())
    for path in ("/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/pids/pids.max"):
        if Path(path).exists() and (text := Path(path).read_text().strip()).isdecimal():
            yield "PIDs of the control group", int(text)
