"""The checks. Each looks at one thing and yields findings; none changes anything."""

import contextlib
import fcntl
import os
import resource
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum, auto
from pathlib import Path

from instance_manager.core.certificates import DAY, Urgency, format_utc, urgency
from instance_manager.core.ports import PortRange

_LITTLE_SPACE = 512 << 20
_FEW = 1024
_TCP_LISTEN = "0A"  # the state in /proc/net/tcp
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}
_CUTTABLE = {"ext4", "xfs"}


class Severity(StrEnum):
    """How bad a finding is."""

    OK = auto()
    WARNING = auto()
    ERROR = auto()


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check."""

    check: str
    severity: Severity
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """The state of the daemon's certificates on disk. Times are in seconds since the epoch."""

    trouble: str
    """Why they cannot be used; empty if they can."""
    expires_at: float
    now: float


@dataclass(frozen=True, slots=True)
class Facts:
    """What the checks look at."""

    state_dir: Path
    logs_dir: Path
    port_range: PortRange
    listed: dict[str, tuple[int, int]] | None
    """First and last port of each listed process by UUID, (0, 0) for none; None without an answer."""
    daemon: str
    """Why the daemon did not answer; empty if it did."""
    living: Collection[tuple[int, str, str]]
    """PID, name and UUID of each living process that daemons with this state directory have started."""
    certificates: CertificateFacts | None = None
    """None for plain text."""


def examine(facts: Facts) -> list[Finding]:
    """Run all checks."""
    checks: tuple[Callable[[Facts], Iterable[Finding]], ...] = (
        _daemon,
        _certificates,
        _state_dir,
        _journal,
        _logs_dir,
        _ephemeral_ports,
        _listeners,
        _limits,
        _strangers,
    )
    return [finding for check in checks for finding in check(facts)]


def _daemon(facts: Facts) -> Iterator[Finding]:
    if facts.listed is None:
        hint = "start it, or name its address with --url"
        yield Finding("daemon", Severity.ERROR, f"does not answer: {facts.daemon}", hint)
    else:
        yield Finding("daemon", Severity.OK, f"answers and lists {len(facts.listed)} processes")


def _certificates(facts: Facts) -> Iterator[Finding]:
    found = facts.certificates
    if found is None:
        yield Finding("certificates", Severity.OK, "none: plain text, no --tls-dir is set")
        return
    if found.trouble:
        message, _, remedy = found.trouble.partition("; ")
        hint = f"{remedy or 'replace them'}; a daemon that runs goes on with what it had before"
        yield Finding("certificates", Severity.ERROR, message, hint)
        return
    due, when = urgency(found.expires_at, found.now), format_utc(found.expires_at)
    if due is Urgency.NONE:
        yield Finding("certificates", Severity.OK, f"valid until {when}")
        return
    bad = Severity.WARNING if due is Urgency.SOON else Severity.ERROR
    left = int((found.expires_at - found.now) / DAY)
    hint = "replace the files in the TLS directory; the daemon takes them into use by itself"
    yield Finding("certificates", bad, f"expire in {left} days, on {when}", hint)


def _state_dir(facts: Facts) -> Iterator[Finding]:
    path = facts.state_dir
    if not path.is_dir():
        hint = "the daemon creates it at its start; is --state-dir the one the daemon has?"
        yield Finding("state directory", Severity.ERROR, f"{path} does not exist", hint)
        return
    if not os.access(path, os.R_OK | os.X_OK):
        hint = "look as the user that the daemon runs as"
        yield Finding("state directory", Severity.ERROR, f"{path} cannot be read", hint)
        return
    if not os.access(path, os.W_OK):
        hint = "remount it writable; without it a daemon that dies loses track of its processes"
        yield Finding("state directory", Severity.ERROR, f"{path} cannot be written", hint)
        return
    if _locked(path / "lock"):
        yield Finding("state directory", Severity.OK, f"{path} is locked by a daemon")
    else:
        hint = "no daemon runs on it: name another one with --state-dir; `guard` restarts a daemon by itself"
        yield Finding("state directory", Severity.WARNING, f"{path} is not locked by any daemon", hint)


def _locked(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        # Shared, so that two who look do not take each other for a daemon.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _journal(facts: Facts) -> Iterator[Finding]:
    path = _journal_path(facts)
    if not os.access(facts.state_dir, os.R_OK | os.X_OK):
        return  # told already
    if not path.exists():
        hint = "the daemon creates it at its start, and anew when it was removed by hand"
        yield Finding("journal", Severity.WARNING, f"{path} does not exist", hint)
        return
    try:
        verdict, count = "ok", len(_journaled(path))
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF not in _DAMAGE:
            hint = "look as the user that the daemon runs as, while the disk is writable"
            yield Finding("journal", Severity.WARNING, f"{path} cannot be read: {error}", hint)
            return
        verdict, count = str(error), 0
    if verdict == "ok":
        yield Finding("journal", Severity.OK, f"{path} is sound and holds {count} processes")
    else:
        hint = "the daemon moves it aside at its next start and recovers from the processes themselves"
        yield Finding("journal", Severity.ERROR, f"{path} is damaged: {verdict}", hint)
    for aside in facts.state_dir.glob("journal.db*.unusable"):
        hint = "an earlier daemon could not read it; look at it or remove it"
        yield Finding("journal", Severity.WARNING, f"{aside} was moved aside", hint)


def _journal_path(facts: Facts) -> Path:
    return facts.state_dir.absolute() / "journal.db"


def _journaled(path: Path) -> set[str]:
    """Return the UUIDs in the journal.

    Raises:
        sqlite3.Error: if it cannot be read, or is damaged.
    """
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        (verdict,) = connection.execute("PRAGMA quick_check").fetchone()
        if verdict != "ok":
            error = sqlite3.DatabaseError(verdict)
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error
        return {uuid for (uuid,) in connection.execute("SELECT uuid FROM processes")}


def _logs_dir(facts: Facts) -> Iterator[Finding]:
    path = facts.logs_dir
    if not path.is_dir():
        hint = "create it or set --logs-dir; processes run without logs meanwhile"
        yield Finding("log directory", Severity.ERROR, f"{path} does not exist", hint)
        return
    space = os.statvfs(path)
    free, kind = space.f_bavail * space.f_frsize, _file_system(path)
    if not os.access(path, os.W_OK):
        hint = "remount it writable; processes run without logs meanwhile"
        yield Finding("log directory", Severity.ERROR, f"{path} cannot be written", hint)
    elif free < _LITTLE_SPACE or (space.f_files and space.f_favail < _FEW):
        left = f"{free >> 20} MiB and {space.f_favail} files left"
        yield Finding("log directory", Severity.ERROR, f"{path} is nearly full: {left}", "remove old logs")
    elif kind in _CUTTABLE:
        yield Finding("log directory", Severity.OK, f"{path}: {kind}, {free >> 20} MiB free")
    else:
        hint = f"use {' or '.join(sorted(_CUTTABLE))}: there old lines are cut off without copying the rest"
        yield Finding("log directory", Severity.WARNING, f"{path} is on {kind or 'an unknown kind'}", hint)


def _file_system(path: Path) -> str:
    """Return the type of the file system of a path, that of the innermost mount around it."""
    best, kind, where = "", "", str(path.resolve())
    for line in Path("/proc/self/mounts").read_text(errors="surrogateescape").splitlines():
        _, mount, name, *_ = line.split(" ")
        inside = where == mount or where.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, name
    return kind


def _ephemeral_ports(facts: Facts) -> Iterator[Finding]:
    text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii")
    first, last = map(int, text.split())
    span = facts.port_range
    if span.start <= last and first <= span.end:
        hint = "change --port-range or net.ipv4.ip_local_port_range: outgoing connections take ports from it"
        message = f"{span} overlaps the system's ephemeral ports {first}-{last}"
        yield Finding("port range", Severity.WARNING, message, hint)
    else:
        yield Finding("port range", Severity.OK, f"{span} is clear of the ephemeral ports {first}-{last}")


def _listeners(facts: Facts) -> Iterator[Finding]:
    ours = {port for start, end in (facts.listed or {}).values() for port in range(start, end + 1)}
    span = facts.port_range
    foreign = sorted(p for p in _listening() if span.start <= p <= span.end and p not in ours)
    if facts.listed is None:
        return  # nobody knows whose they are
    if foreign:
        shown = ", ".join(map(str, foreign[:10])) + (" …" if len(foreign) > 10 else "")  # noqa: PLR2004
        hint = "an instance that gets one of these ports cannot listen on it; find out with: ss -ltnp"
        yield Finding("ports", Severity.WARNING, f"others listen in {span}: {shown}", hint)
    else:
        yield Finding("ports", Severity.OK, f"nobody else listens in {span}")


def _listening() -> set[int]:
    found = set()
    for name in ("tcp", "tcp6"):
        path = Path("/proc/net") / name
        if path.exists():
            for line in path.read_text(encoding="ascii").splitlines()[1:]:
                _, local, _, state, *_ = line.split()
                if state == _TCP_LISTEN:
                    found.add(int(local.rpartition(":")[2], 16))
    return found


def _limits(facts: Facts) -> Iterator[Finding]:
    del facts
    _, descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)
    limits = {"open files": descriptors, "PIDs": int(Path("/proc/sys/kernel/pid_max").read_text())}
    for path in ("/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/pids/pids.max"):
        if Path(path).exists() and (text := Path(path).read_text().strip()).isdecimal():
            limits["PIDs of the control group"] = int(text)
    for name, value in limits.items():
        if 0 <= value < _FEW * 4:
            hint = f"raise it above {_FEW * 4}: every instance takes some"
            yield Finding("limits", Severity.WARNING, f"only {value} {name} are allowed", hint)
        else:
            yield Finding("limits", Severity.OK, f"{value if value >= 0 else 'unlimited'} {name}")


def _strangers(facts: Facts) -> Iterator[Finding]:
    if facts.listed is None:
        return
    known = set(facts.listed)
    # The old side of a replace is not listed, nor is the new one until it runs; and since the list was asked
    # for, instances have come and gone.
    with contextlib.suppress(sqlite3.Error, OSError):
        known |= _journaled(_journal_path(facts))
    strange = [each for each in facts.living if each[2] not in known and Path(f"/proc/{each[0]}").exists()]
    for pid, name, uuid in strange:
        hint = f"if nobody needs it any more: kill {pid}"
        message = f"process {pid} carries the identity of {name} ({uuid}), which the daemon does not list"
        yield Finding("unadopted processes", Severity.ERROR, message, hint)
    if not strange:
        yield Finding("unadopted processes", Severity.OK, "every living instance is listed")
