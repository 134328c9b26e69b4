"""Volumes that became read-only are remounted, and backup targets unmounted, by the programs for it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from instance_manager.adapters.host_mounts import HostMounts
from instance_manager.core.conditions import volume_key
from instance_manager.core.errors import UpstreamError
from tests.support.patience import patience

GLOBAL = f"/plugins/driver.longhorn.io/{volume_key('vol1')}/globalmount"
Node = Callable[..., HostMounts]


def line(point: str | Path) -> str:
    return f"36 35 8:16 / {point} ro,relatime shared:7 - ext4 /dev/longhorn/vol1 ro\n"


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    """A node with these mounts, where each program writes down how it was called, then runs a script."""
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")

    def make(*points: str | Path, script: str = "", pod: bool = True, seconds: float = 20) -> HostMounts:
        for process, used in (("host", pod), ("own", True)):
            if used:
                (tmp_path / process).mkdir()
                (tmp_path / process / "mountinfo").write_text("".join(map(line, points)))
        (tmp_path / "bin").mkdir()
        for name in ("nsenter", "mount", "umount"):
            program = tmp_path / "bin" / name
            program.write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/calls\n{script}\n')
            program.chmod(0o755)
        return HostMounts(tmp_path / "host", tmp_path / "own", tmp_path / "backups", patience(seconds))

    return make


def calls(tmp_path: Path) -> list[str]:
    """Return how programs were called since the last time."""
    file = tmp_path / "calls"
    told = file.read_text().splitlines() if file.exists() else []
    file.unlink(missing_ok=True)
    return told


async def test_a_volume_is_remounted_in_the_namespaces_of_the_node(node: Node, tmp_path: Path) -> None:
    mounts = node("/", f"/a\\040b{GLOBAL}", f"/c{GLOBAL}/x", f"/d/{'0' * 64}/globalmount")
    await mounts.remount_writable("vol1")
    enter = f"--mount={tmp_path}/host/ns/mnt --net={tmp_path}/host/ns/net"
    assert calls(tmp_path) == [f"nsenter {enter} mount -o remount,rw /a b{GLOBAL}"]


async def test_outside_of_a_pod_a_volume_is_remounted_where_it_is(node: Node, tmp_path: Path) -> None:
    await node(f"/a{GLOBAL}", pod=False).remount_writable("vol1")
    assert calls(tmp_path) == [f"mount -o remount,rw /a{GLOBAL}"]


async def test_a_volume_that_is_not_mounted_is_left_alone(node: Node, tmp_path: Path) -> None:
    mounts = node("/", f"/a{GLOBAL}")
    for name in ("vol2", ""):
        await mounts.remount_writable(name)
    assert calls(tmp_path) == []


async def test_a_remount_that_fails_says_why(node: Node) -> None:
    mounts = node(f"/a{GLOBAL}", script="echo no such medium >&2; exit 32")
    with pytest.raises(UpstreamError) as error:
        await mounts.remount_writable("vol1")
    assert (error.value.code, str(error.value)) == (
        "INTERNAL",
        "remount failed with error: no such medium",
    )


async def test_a_remount_that_hangs_is_given_up(node: Node) -> None:
    mounts = node(f"/a{GLOBAL}", script="exec sleep 1000", seconds=0.3)
    with pytest.raises(UpstreamError, match="remount failed with error: no answer") as error:
        await mounts.remount_writable("vol1")
    assert error.value.code == "INTERNAL"


async def test_a_warning_is_no_failure(node: Node) -> None:
    await node(f"/a{GLOBAL}", script="echo use systemctl >&2").remount_writable("vol1")


async def test_backup_targets_are_unmounted_and_their_directories_removed(node: Node, tmp_path: Path) -> None:
    points = [
        tmp_path / "backups" / "nfs",
        tmp_path / "backups" / "nfs" / "inner",
        tmp_path / "backups" / "x",
    ]
    for point in points:
        point.mkdir(parents=True)
    (tmp_path / "backups" / "no-mount").mkdir()
    await node("/", tmp_path / "backupsx", *points).unmount_backup_targets()
    assert calls(tmp_path) == [f"umount {each}" for each in (points[1], points[0], points[2])]
    assert [each.name for each in (tmp_path / "backups").iterdir()] == ["no-mount"]


async def test_targets_that_are_mounted_upon_each_other_are_all_unmounted(node: Node, tmp_path: Path) -> None:
    point = tmp_path / "backups" / "nfs"
    point.mkdir(parents=True)
    mounted = f"test -d {point} || {{ echo gone >&2; exit 1; }}"
    await node("/", point, point, script=mounted).unmount_backup_targets()
    assert calls(tmp_path) == [f"umount {point}"] * 2
    assert not point.exists()


async def test_a_volume_that_is_mounted_twice_is_remounted_once(node: Node, tmp_path: Path) -> None:
    await node(f"/a{GLOBAL}", f"/a{GLOBAL}", pod=False).remount_writable("vol1")
    assert calls(tmp_path) == [f"mount -o remount,rw /a{GLOBAL}"]


async def test_without_backup_targets_there_is_nothing_to_unmount(node: Node, tmp_path: Path) -> None:
    await node("/").unmount_backup_targets()
    assert calls(tmp_path) == []


async def test_one_that_is_busy_does_not_keep_the_others_mounted(node: Node, tmp_path: Path) -> None:
    points = [tmp_path / "backups" / name for name in ("busy", "idle")]
    for point in points:
        point.mkdir(parents=True)
    mounts = node(*points, script='case "$*" in *busy) echo target is busy >&2; exit 32;; esac')
    with pytest.raises(UpstreamError) as error:
        await mounts.unmount_backup_targets()
    text = f"failed to unmount {points[0]}: target is busy"
    assert (error.value.code, str(error.value)) == ("INTERNAL", text)
    assert points[0].is_dir()
    assert not points[1].exists()


async def test_one_that_hangs_is_unmounted_by_force(node: Node, tmp_path: Path) -> None:
    point = tmp_path / "backups" / "nfs"
    point.mkdir(parents=True)
    await node(point, script='test "$1" = --force || sleep 1000', seconds=0.3).unmount_backup_targets()
    assert calls(tmp_path) == [f"umount {point}", f"umount --force {point}"]
    assert not point.exists()


async def test_one_that_hangs_even_so_is_told_of(node: Node, tmp_path: Path) -> None:
    point = tmp_path / "backups" / "nfs"
    point.mkdir(parents=True)
    with pytest.raises(UpstreamError, match="it hangs, also by force"):
        await node(point, script="sleep 1000", seconds=0.3).unmount_backup_targets()
