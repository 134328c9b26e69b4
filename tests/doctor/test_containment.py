"""What the doctor says of containment."""

from pathlib import Path
from typing import Any

import pytest

from instance_manager.adapters.cgroup import ForeignCell
from instance_manager.app.containment import ContainmentStatus, Kind
from instance_manager.core.ports import PortRange
from instance_manager.doctor import Facts, Finding, Severity
from instance_manager.doctor.containment import check_containment

FOLDER = "/sys/fs/cgroup/im/0123456789abcdef"


def found(status: ContainmentStatus | None, **facts: Any) -> list[Finding]:
    given = Facts(Path("/s"), Path("/l"), PortRange(1, 2), None, "", [], containment=status, **facts)
    return list(check_containment(given))


def cgroups(**fields: Any) -> ContainmentStatus:
    return ContainmentStatus(Kind.CGROUP, "cells can be made", FOLDER, **fields)


def test_where_all_is_well_it_says_where_to_look() -> None:
    first, others = found(cgroups(controllers=("memory", "pids")))
    assert (first.severity, others.severity) == (Severity.OK, Severity.OK)
    assert first.message == f"each instance has a cgroup in {FOLDER}; controllers: memory, pids"


def test_of_an_earlier_daemon_that_does_not_tell_nothing_is_said() -> None:
    assert found(None) == []


@pytest.mark.parametrize(
    ("status", "check", "message"),
    [
        (
            ContainmentStatus(Kind.SESSION, "no cgroups are mounted"),
            "containment",
            "processes of instances are searched for: no cgroups are mounted",
        ),
        (
            cgroups(controllers_missing="other processes are in the same cgroup (pid 7)"),
            "controllers",
            "some controllers are not enabled: other processes are in the same cgroup (pid 7)",
        ),
        (
            cgroups(limits_refused={"memory.max": "the controller memory is not enabled"}),
            "limits of instances",
            "memory.max cannot be set: the controller memory is not enabled",
        ),
        (
            cgroups(failures={"Read-only file system": 3}),
            "cgroups",
            "3 instances could not be started for want of a cgroup: Read-only file system",
        ),
    ],
)
def test_what_is_wrong_is_a_warning_with_a_hint(status: ContainmentStatus, check: str, message: str) -> None:
    (warning,) = [finding for finding in found(status) if finding.severity is not Severity.OK]
    assert (warning.severity, warning.check, warning.message) == (Severity.WARNING, check, message)
    assert "docs/containment.md" in warning.hint


def test_cells_of_other_state_directories_are_shown_with_how_to_end_them() -> None:
    cells = [ForeignCell("f" * 16, f"u{number}", number or None) for number in range(7)]
    _, others = found(cgroups(), foreign=cells)
    assert others.severity is Severity.OK
    assert f"{'f' * 16}/u0 (unreadable), {'f' * 16}/u1 (1 process)" in others.message
    assert others.message.endswith(", 2 more")
    assert "echo 1 > /sys/fs/cgroup/im/OWNER/UUID/cgroup.kill" in others.hint


def test_cells_that_cannot_be_looked_at_are_not_said_to_be_none() -> None:
    _, others = found(cgroups(), foreign_error="Permission denied")
    assert others.severity is Severity.WARNING
    assert "/sys/fs/cgroup/im cannot be looked at: Permission denied" in others.message
