"""What the tests beside this one expect of the machine."""

from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def test_control_groups_are_of_version_2_alone() -> None:
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    assert [(kind, where) for _, where, kind, *_ in mounts if kind.startswith("cgroup")] == [
        ("cgroup2", str(CGROUPS))
    ]
    assert {"cpu", "io", "memory", "pids"} <= set((CGROUPS / "cgroup.controllers").read_text().split())


def test_systemd_is_the_first_process() -> None:
    assert Path("/proc/1/comm").read_text() == "systemd\n"
