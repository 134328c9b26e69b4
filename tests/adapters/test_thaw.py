"""Frozen file systems of volumes are thawed once at the start, whatever the program for it does."""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import structlog

from instance_manager.adapters.thaw import WORK, Thaw, volume_mounts
from instance_manager.platform.background import Background
from tests.support import processes
from tests.support.patience import patience

Logs = list[dict[str, Any]]
Run = Callable[..., Coroutine[Any, Any, Logs]]


def line(point: str | Path, source: str = "/dev/longhorn/vol", optional: str = "shared:7 ") -> str:
    return f"36 35 8:16 / {point} rw,relatime {optional}- ext4 {source} rw\n"


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([line("/a")], ["/a"]),
        ([line("/a", optional="")], ["/a"]),
        ([line("/a"), line("/b"), line("/a")], ["/a", "/b"]),
        ([line("/a\\040b\\134c")], ["/a b\\c"]),
        ([line("/a", "/dev/sda"), line("/b", "tmpfs"), line("/c", "/dev/longhornish/x")], []),
        ([line("/x/dev/longhorn/", "/dev/sda")], []),
        (["", "\n", "1 2 3\n", " - \n", " - ext4\n", " - ext4 /dev/longhorn/vol rw\n"], []),
    ],
)
def test_what_is_mounted_from_a_volumes_device_is_found(lines: list[str], found: list[str]) -> None:
    assert volume_mounts(lines) == found


@pytest.fixture
async def background() -> AsyncIterator[Background]:
    background = Background(WORK)
    yield background
    await background.close()


@pytest.fixture
def thaw(tmp_path: Path, background: Background) -> Run:
    """Thaw these mount points with a script as the program, and return what was logged."""

    async def run(script: str, *points: str, seconds: float = patience(20)) -> Logs:
        (tmp_path / "mountinfo").write_text("".join(map(line, points)))
        (tmp_path / "program").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "program").chmod(0o755)
        with structlog.testing.capture_logs() as logs:
            command = (str(tmp_path / "program"), "-u")
            await Thaw(background, tmp_path / "mountinfo", command, seconds).start()
        return [dict(each) for each in logs]

    return run


async def test_each_mount_is_thawed_and_told(thaw: Run, tmp_path: Path, background: Background) -> None:
    descriptors = len(processes.descriptors())
    logs = await thaw(f'echo "$@" >> {tmp_path}/calls', "/a", "/b")
    assert (tmp_path / "calls").read_text() == "-u /a\n-u /b\n"
    assert [(each["mount"], each["log_level"]) for each in logs] == [("/a", "warning"), ("/b", "warning")]
    assert background.works[WORK].failures == 0
    assert len(processes.descriptors()) == descriptors


async def test_one_that_is_not_frozen_is_not_worth_a_word(
    thaw: Run,
) -> None:
    logs = await thaw('echo "fsfreeze: $2: unfreeze failed: Invalid argument" >&2; exit 1', "/a")
    assert [(each["event"], each["log_level"]) for each in logs] == [("file system is not frozen", "debug")]


async def test_one_that_fails_is_told_and_does_not_stop_the_others(thaw: Run, background: Background) -> None:
    logs = await thaw('test "$2" = /b || { echo "cannot open $2" >&2; exit 1; }', "/a", "/b")
    assert [each.get("reason") for each in logs] == ["cannot open /a", None]
    assert background.works[WORK].failures == 0


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exit 3", "{program} ended with status 3"),
        ("kill -KILL $$", "Killed"),
        ("echo no; exit 1", "no"),
    ],
)
async def test_one_that_fails_without_a_word_has_thawed_nothing(
    thaw: Run, tmp_path: Path, script: str, reason: str
) -> None:
    (told,) = await thaw(script, "/a")
    assert told["event"] == "cannot thaw a file system"
    assert told["reason"] == reason.format(program=tmp_path / "program")


async def test_one_that_succeeds_has_thawed_whatever_it_prints(thaw: Run) -> None:
    (told,) = await thaw("echo unfrozen", "/a")
    assert told["event"].startswith("thawed")


async def test_one_that_hangs_is_left_behind(thaw: Run, tmp_path: Path) -> None:
    logs = await thaw(
        f'test "$2" = /b || {{ echo $$ > {tmp_path}/pid; exec sleep 1000; }}', "/a", "/b", seconds=1
    )
    assert [each["event"] for each in logs][:1] == ["cannot thaw a file system: no answer"]
    assert [each["mount"] for each in logs] == ["/a", "/b"]
    if (tmp_path / "pid").exists():  # on a busy machine it may not have come so far
        pid = int((tmp_path / "pid").read_text())
        while processes.lives(pid):  # noqa: ASYNC110 - it is no child of this process
            await asyncio.sleep(0)


async def test_without_the_program_it_says_so_once(background: Background, tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text(line("/a") + line("/b"))
    with structlog.testing.capture_logs() as logs:
        await Thaw(background, tmp_path / "mountinfo", ("/nowhere/fsfreeze", "-u")).start()
    assert [(each["program"], each["log_level"]) for each in logs] == [("/nowhere/fsfreeze", "warning")]
    assert background.works[WORK].failures == 0


async def test_one_that_leaves_a_child_behind_is_not_waited_for(thaw: Run, tmp_path: Path) -> None:
    logs = await thaw(f"sleep 1000 & echo $! > {tmp_path}/pid", "/a")
    os.kill(int((tmp_path / "pid").read_text()), 9)
    assert [each["mount"] for each in logs] == ["/a"]


FREEZE = """
set -e
mount -o loop "$1" "$2"
fsfreeze --freeze "$2"
echo "1 2 7:0 / $2 rw - ext4 /dev/longhorn/vol rw" > "$3"
"$4" "$5" "$3"
# A frozen one refuses to be frozen again.
fsfreeze --freeze "$2"
fsfreeze --unfreeze "$2"
echo thawed
"""
THAW = """
import asyncio, sys
from pathlib import Path
from instance_manager.adapters.thaw import WORK, Thaw
from instance_manager.platform.background import Background

async def main():
    await Thaw(Background(WORK), Path(sys.argv[1])).start()

asyncio.run(main())
"""


def loop_mounts(image: Path, folder: Path) -> bool:
    script = 'mount -o loop "$1" "$2" && umount "$2"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", image, folder], capture_output=True, check=False
    )
    return done.returncode == 0


def test_a_real_file_system_is_thawed_by_the_real_program(tmp_path: Path) -> None:
    image, folder, program = tmp_path / "image", tmp_path / "mnt", tmp_path / "program.py"
    folder.mkdir()
    program.write_text(THAW)
    with image.open("wb") as file:
        file.truncate(16 << 20)
    if not all(map(shutil.which, ("mkfs.ext4", "fsfreeze", "unshare"))):
        pytest.skip("needs mkfs.ext4, fsfreeze and unshare")
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    if not loop_mounts(image, folder):
        pytest.skip("needs the right to mount a file with an ext4 in it")
    done = subprocess.run(
        [
            "unshare",
            "--mount",
            "sh",
            "-c",
            FREEZE,
            "sh",
            image,
            folder,
            tmp_path / "mountinfo",
            sys.executable,
            program,
        ],
        capture_output=True,
        text=True,
        timeout=patience(30),
        check=False,
    )
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["thawed"]), done.stdout + done.stderr
