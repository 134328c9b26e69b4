"""The checks of containment: whether each instance has a cgroup, its limits, and whose other cgroups are."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from instance_manager.adapters.cgroup import ForeignCell
from instance_manager.app.containment import ContainmentStatus, Kind
from instance_manager.doctor.facts import Facts
from instance_manager.doctor.finding import Finding, Severity

_DOCS = "see docs/containment.md"
_MOST_NAMED = 5


def check_containment(facts: Facts) -> Iterator[Finding]:
    """Word how the daemon tells which processes belong to an instance."""
    status = facts.containment
    if status is None:
        return
    yield _kind(status)
    if status.controllers_missing:
        hint = f"limits and counts are incomplete without them; {_DOCS}"
        message = f"some controllers are not enabled: {status.controllers_missing}"
        yield Finding("controllers", Severity.WARNING, message, hint)
    for file, reason in sorted(status.limits_refused.items()):
        hint = f"instances run without it; {_DOCS}"
        yield Finding("limits of instances", Severity.WARNING, f"{file} cannot be set: {reason}", hint)
    for reason, count in sorted(status.failures.items()):
        hint = f"search the daemon's log for: no cell can be made; {_DOCS}"
        message = f"{count} instances could not be started for want of a cgroup: {reason}"
        yield Finding("cgroups", Severity.WARNING, message, hint)
    if status.folder:
        yield _others(Path(status.folder).parent, facts.foreign, facts.foreign_error)


def _kind(status: ContainmentStatus) -> Finding:
    if status.kind is Kind.CGROUP:
        reached = f"; controllers: {', '.join(status.controllers)}" if status.controllers else ""
        message = f"each instance has a cgroup in {status.folder}{reached}"
        return Finding("containment", Severity.OK, message)
    message = f"processes of instances are searched for: {status.why}"
    hint = f"with a cgroup each, none of them can be missed; {_DOCS}"
    return Finding("containment", Severity.WARNING, message, hint)


def _others(root: Path, cells: Sequence[ForeignCell], error: str) -> Finding:
    """Tell of cells of other state directories: they may be another daemon's, or one's that was removed."""
    if error:
        hint = "look as the user that the daemon runs as, on its machine"
        return Finding("other cgroups", Severity.WARNING, f"{root} cannot be looked at: {error}", hint)
    if not cells:
        return Finding("other cgroups", Severity.OK, f"all in {root} are of this state directory")
    named = [f"{cell.owner}/{cell.uuid} ({_count(cell.members)})" for cell in cells[:_MOST_NAMED]]
    if len(cells) > _MOST_NAMED:
        named.append(f"{len(cells) - _MOST_NAMED} more")
    hint = (
        "they are never touched from here; if nobody needs one any more, end all that is in it with: "
        f"echo 1 > {root}/OWNER/UUID/cgroup.kill"
    )
    message = f"{root} has instances of other state directories: {', '.join(named)}"
    return Finding("other cgroups", Severity.OK, message, hint)


def _count(members: int | None) -> str:
    if members is None:
        return "unreadable"
    return "1 process" if members == 1 else f"{members} processes"
