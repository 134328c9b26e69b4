"""The checks. Each words what an adapter's `inspect` has found; none changes anything."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from instance_manager.adapters import journal
from instance_manager.adapters.journal import StateDir
from instance_manager.adapters.logs import inspection as logs
from instance_manager.core.certificates import DAY, Urgency, format_utc, urgency
from instance_manager.core.ports import join_ports
from instance_manager.doctor import host
from instance_manager.doctor.containment import check_containment
from instance_manager.doctor.facts import Facts
from instance_manager.doctor.finding import Finding, Severity

_LITTLE_SPACE = 512 << 20
_FEW = 1024


def examine(facts: Facts) -> list[Finding]:
    """Run all checks."""
    checks: tuple[Callable[[Facts], Iterable[Finding]], ...] = (
        _daemon,
        _background,
        _metrics,
        _spdk,
        _certificates,
        _state_dir,
        _journal,
        _logs_dir,
        _outputs,
        _ephemeral_ports,
        _listeners,
        _limits,
        _pidfds,
        check_containment,
        _strangers,
    )
    return [finding for check in checks for finding in check(facts)]


def _daemon(facts: Facts) -> Iterator[Finding]:
    if facts.listed is None:
        hint = "start it, or name its address with --url"
        yield Finding("daemon", Severity.ERROR, f"does not answer: {facts.daemon}", hint)
    else:
        yield Finding("daemon", Severity.OK, f"answers and lists {len(facts.listed)} processes")


def _background(facts: Facts) -> Iterable[Finding]:
    if facts.listed is None:
        return
    for name in facts.failing:
        hint = "it is tried again; for the reason, search the daemon's log for: background work failed"
        yield Finding("background work", Severity.ERROR, f"{name} of the daemon fails", hint)
    if not facts.failing:
        yield Finding("background work", Severity.OK, "all of the daemon's goes on")


def _metrics(facts: Facts) -> Iterator[Finding]:
    if facts.listed is None:
        return
    if facts.metrics:
        yield Finding("metrics", Severity.OK, "are served, unless the daemon has none to serve")
    else:
        hint = (
            "its address cannot be listened on: free it, or set --metrics-listen to another one; for the "
            "reason, search the daemon's log for: no metrics are served"
        )
        yield Finding("metrics", Severity.WARNING, "are not served; the daemon tries again", hint)


def _spdk(facts: Facts) -> Iterator[Finding]:
    if facts.spdk:
        yield Finding("SPDK service", Severity.OK, "the daemon watches the instances of the v2 data engine")
    elif facts.spdk is False:
        hint = (
            "start a process that serves SPDKService where --spdk-service-address says, by default on the "
            "port 8504, or start the daemon without --spdk-enabled"
        )
        message = "the daemon serves the v2 data engine, but does not reach the SPDK service"
        yield Finding("SPDK service", Severity.ERROR, message, hint)


def _certificates(facts: Facts) -> Iterator[Finding]:
    found = facts.certificates
    if found is None:
        yield Finding("certificates", Severity.OK, "none: plain text, no --tls-dir is set")
        return
    if found.error:
        message, _, remedy = found.error.partition("; ")
        hint = f"{remedy or 'replace them'}; a daemon that runs goes on with what it had before"
        yield Finding("certificates", Severity.ERROR, message, hint)
        return
    due, when = urgency(found.expires_at, found.now), format_utc(found.expires_at)
    if due is Urgency.NONE:
        yield Finding("certificates", Severity.OK, f"valid until {when}")
        return
    bad = Severity.WARNING if due is Urgency.SOON else Severity.ERROR
    remaining = int((found.expires_at - found.now) / DAY)
    hint = "replace the files in the TLS directory; the daemon takes them into use by itself"
    yield Finding("certificates", bad, f"expire in {remaining} days, on {when}", hint)


def _state_dir(facts: Facts) -> Iterator[Finding]:
    path, found = facts.state_dir, StateDir(facts.state_dir).inspect()
    if not found.exists:
        hint = "the daemon creates it at its start; is --state-dir the one the daemon has?"
        yield Finding("state directory", Severity.ERROR, f"{path} does not exist", hint)
        return
    if not found.readable:
        hint = "look as the user that the daemon runs as"
        yield Finding("state directory", Severity.ERROR, f"{path} cannot be read", hint)
        return
    if not found.writable:
        hint = "remount it writable; without it a daemon that dies loses track of its processes"
        yield Finding("state directory", Severity.ERROR, f"{path} cannot be written", hint)
        return
    if found.locked:
        yield Finding("state directory", Severity.OK, f"{path} is locked by a daemon")
    else:
        hint = "no daemon runs on it: name another one with --state-dir; `guard` restarts a daemon by itself"
        yield Finding("state directory", Severity.WARNING, f"{path} is not locked by any daemon", hint)


def _journal(facts: Facts) -> Iterator[Finding]:
    state = StateDir(facts.state_dir)
    if not state.inspect().readable:
        return  # reported already
    path, found = state.journal, journal.inspect(state.journal)
    if not found.exists:
        hint = "the daemon creates it at its start, and anew when it was removed by hand"
        yield Finding("journal", Severity.WARNING, f"{path} does not exist", hint)
    elif found.damaged:
        hint = "the daemon moves it aside at its next start and recovers from the processes themselves"
        yield Finding("journal", Severity.ERROR, f"{path} is damaged: {found.error}", hint)
    elif found.error:
        hint = "look as the user that the daemon runs as, while the disk is writable"
        yield Finding("journal", Severity.WARNING, f"{path} cannot be read: {found.error}", hint)
    else:
        message = f"{path} is sound and holds {len(found.uuids)} processes"
        yield Finding("journal", Severity.OK, message)
    for aside in found.moved_aside:
        hint = "an earlier daemon could not read it; look at it or remove it"
        yield Finding("journal", Severity.WARNING, f"{aside} was moved aside", hint)


def _logs_dir(facts: Facts) -> Iterator[Finding]:
    path, found = facts.logs_dir, logs.inspect(facts.logs_dir)
    if found is None:
        hint = "create it or set --logs-dir; processes run without logs meanwhile"
        yield Finding("log directory", Severity.ERROR, f"{path} does not exist", hint)
    elif not found.writable:
        hint = "remount it writable; processes run without logs meanwhile"
        yield Finding("log directory", Severity.ERROR, f"{path} cannot be written", hint)
    elif found.free_bytes < _LITTLE_SPACE or (found.free_files is not None and found.free_files < _FEW):
        files = "" if found.free_files is None else f" and {found.free_files} files"
        message = f"{path} is nearly full: {found.free_bytes >> 20} MiB{files} left; {_stock(found)}"
        hint = (
            "lower --log-keep-age or --log-keep-size; do not remove the log of a living process, which "
            "goes on to fill it, but shorten it: truncate -s 0 NAME.log"
        )
        yield Finding("log directory", Severity.ERROR, message, hint)
    elif found.file_system in logs.TRIMS_IN_PLACE:
        message = f"{path}: {found.file_system}, {found.free_bytes >> 20} MiB free, {_stock(found)}"
        yield Finding("log directory", Severity.OK, message)
    else:
        hint = f"use {' or '.join(logs.TRIMS_IN_PLACE)}: there old lines are cut off without copying the rest"
        message = f"{path} is on {found.file_system or 'an unknown file system'}; {_stock(found)}"
        yield Finding("log directory", Severity.WARNING, message, hint)


def _stock(found: logs.LogDirInspection) -> str:
    return f"{found.files} logs take {found.size >> 20} MiB"


def _outputs(facts: Facts) -> Iterable[Finding]:
    wrong = False
    for pid, name, _ in facts.living:
        found = logs.inspect_output(pid)
        if found is None:
            continue
        if found.lost:
            hint = "its log could not be opened when it was started; only a new process gets one"
            yield Finding("logs", Severity.WARNING, f"logs of {name} are lost for its lifetime", hint)
        elif found.removed:
            hint = f"it still takes space and grows; shorten it: truncate -s 0 /proc/{pid}/fd/1"
            message = f"the log of {name} was removed, but process {pid} goes on to write it"
            yield Finding("logs", Severity.WARNING, message, hint)
        wrong = wrong or found.lost or found.removed
    if not wrong:
        yield Finding("logs", Severity.OK, "every living instance writes its log")


def _ephemeral_ports(facts: Facts) -> Iterator[Finding]:
    first, last = host.ephemeral_ports()
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
    foreign = sorted(p for p in host.listening_ports() if span.start <= p <= span.end and p not in ours)
    if facts.listed is None:
        return  # nobody knows whose they are
    if foreign:
        hint = "the daemon does not hand these ports out; find out whose they are with: ss -ltnp"
        message = f"other programs listen in {span}: {join_ports(foreign)}"
        yield Finding("ports", Severity.WARNING, message, hint)
    else:
        yield Finding("ports", Severity.OK, f"nobody else listens in {span}")


def _limits(facts: Facts) -> Iterator[Finding]:
    for name, value in host.limits(StateDir(facts.state_dir).holder()):
        if 0 <= value < _FEW * 4:
            hint = f"raise it above {_FEW * 4}: every instance takes some"
            yield Finding("limits", Severity.WARNING, f"only {value} {name} are allowed", hint)
        else:
            yield Finding("limits", Severity.OK, f"{value if value >= 0 else 'unlimited'} {name}")


def _pidfds(facts: Facts) -> Iterator[Finding]:
    if facts.pidfds:
        message, _, hint = facts.pidfds.partition("; ")
        yield Finding("kernel", Severity.ERROR, message, hint)
    else:
        yield Finding("kernel", Severity.OK, "processes can be handled through pidfds")


def _strangers(facts: Facts) -> Iterator[Finding]:
    if facts.listed is None:
        return
    # The old side of a replace is not listed, nor is the new one until it runs; and since the list was asked
    # for, instances have come and gone.
    known = journal.inspect(StateDir(facts.state_dir).journal).uuids | set(facts.listed)
    strange = [each for each in facts.living if each[2] not in known and Path(f"/proc/{each[0]}").exists()]
    for pid, name, uuid in strange:
        hint = f"if nobody needs it any more: kill {pid}"
        message = f"process {pid} carries the identity of {name} ({uuid}), which the daemon does not list"
        yield Finding("unadopted processes", Severity.ERROR, message, hint)
    if not strange:
        yield Finding("unadopted processes", Severity.OK, "every living instance is listed")
