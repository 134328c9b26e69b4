"""Whatever becomes of the file system of the logs, no process ends or waits because of it."""

import asyncio
import fcntl
import mmap
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from instance_manager.client import Client
from instance_manager.pb.imrpc import imrpc_pb2 as pb
from tests.support.daemon import Watch, running_daemon, sleeper
from tests.support.patience import patience

Sized = Callable[[int, int], int]

LONGEST_WAIT = 1
"""Seconds that a write may keep a process waiting."""
SHUT_DOWN = 0x8004587D
"""EXT4_IOC_SHUTDOWN: from then on every write is an I/O error, as with a disk that is gone."""

SLOT = struct.Struct("=qqd")
"""Writes, writes that failed, longest time in seconds for which one kept the process waiting."""

WRITER = f"""
import mmap, os, resource, struct, sys, time
slot = struct.Struct({SLOT.format!r})
shared = mmap.mmap(os.open(sys.argv[1], os.O_RDWR), 0)
offset = int(sys.argv[2]) * slot.size
written = failed = 0
longest = 0.0
line = b"x" * 999 + b"\\n"

def waits():
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw

while True:
    time.sleep(0.2)
    waited, begun = waits(), time.monotonic()
    try:
        os.write(1, line)
        written += 1
    except OSError:
        failed += 1
    took = time.monotonic() - begun
    # One that only lost the processor to others was not kept waiting by the write.
    if waits() != waited:
        longest = max(longest, took)
    slot.pack_into(shared, offset, written, failed, longest)
"""
"""A process that logs five lines a second whatever becomes of them, and notes how that goes."""


class Writers:
    """Processes that log, and how it goes for each."""

    def __init__(self, folder: Path, count: int) -> None:
        self._program = folder / "writer.py"
        self._program.write_text(WRITER)
        self._notes = folder / "notes"
        self._notes.write_bytes(bytes(SLOT.size * count))
        with self._notes.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), 0)
        self.count = count

    async def start(self, client: Client, watch: Watch) -> None:
        """Start all of them."""
        for begin in range(0, self.count, 20):
            numbers = range(begin, min(begin + 20, self.count))
            await asyncio.gather(*(client.process_create(self._spec(number)) for number in numbers))
        await watch.until(lambda seen: sum(c.status.state == "running" for c in seen) >= self.count, 120)

    def _spec(self, number: int) -> pb.ProcessSpec:
        args = ["-ISE", str(self._program), str(self._notes), str(number)]
        return pb.ProcessSpec(name=f"w{number}", binary=sys.executable, args=args)

    async def more(self, client: Client, *, written: int = 0, failed: int = 0) -> None:
        """Wait until each has written, or failed to, so many times more."""
        before = list(SLOT.iter_unpack(self._shared[:]))
        async with asyncio.timeout(patience(120)):
            while any(
                now[0] < then[0] + written or now[1] < then[1] + failed
                for now, then in zip(SLOT.iter_unpack(self._shared[:]), before, strict=True)
            ):
                await client.health()

    @property
    def longest_wait(self) -> float:
        """The longest time in seconds for which a write has kept one of them waiting."""
        return max(float(wait) for _, _, wait in SLOT.iter_unpack(self._shared[:]))


class Disk:
    """A file system of its own, in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "disk"
        self._memory = folder / "memory"

    def mount(self) -> None:
        """Make and mount it."""
        self.folder.mkdir()
        self._memory.mkdir()
        image = self._memory / "image"
        self._run("mount", "-t", "tmpfs", "tmpfs", str(self._memory))
        with image.open("wb") as file:
            file.truncate(64 << 20)
        self._run("mkfs.ext4", "-q", "-F", str(image))
        self._run("mount", "-o", "loop,errors=remount-ro", str(image), str(self.folder))

    @staticmethod
    def _run(*command: str) -> None:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"needs the right to mount an ext4 image: {done.stderr.strip()}")

    def unmount(self) -> None:
        """Undo it, as far as it was done."""
        for mounted in (self.folder, self._memory):
            if mounted.is_mount():
                subprocess.run(["umount", "-l", str(mounted)], check=True)

    def become_full(self) -> None:
        """Let somebody else fill it to the last block."""
        with (self.folder / "filling").open("wb", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    pass

    def become_read_only(self) -> None:
        """Have the kernel find an error in it, after which it writes nothing any more."""
        device = self.folder.stat().st_dev
        name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
        Path(f"/sys/fs/ext4/{name}/trigger_fs_error").write_text("by the test\n")

    def fail(self) -> None:
        """Make every write fail."""
        fd = os.open(self.folder, os.O_RDONLY)
        fcntl.ioctl(fd, SHUT_DOWN, struct.pack("=I", 2))
        os.close(fd)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path)
    try:
        disk.mount()
        yield disk
    finally:
        disk.unmount()


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "trouble",
    [
        (Disk.become_full, "No space left on device"),
        (Disk.become_read_only, "Read-only file system"),
        (Disk.fail, "Input/output error"),
    ],
    ids=["full", "read-only", "failing"],
)
async def test_a_disk_in_trouble_ends_no_process_keeps_none_waiting_and_is_told(
    disk: Disk,
    tmp_path: Path,
    sized: Sized,
    trouble: tuple[Callable[[Disk], None], str],
    record_property: Callable[[str, object], None],
) -> None:
    happen, reason = trouble
    writers = Writers(tmp_path, sized(50, 500))
    async with (
        running_daemon(tmp_path, "--logs-dir", str(disk.folder)) as daemon,
        daemon.client() as client,
        Watch(client) as watch,
    ):
        await writers.start(client, watch)
        await writers.more(client, written=2)
        happen(disk)
        await writers.more(client, failed=10)
        await client.process_create(sleeper("late"))
        await watch.state("late", "running")
        told = await daemon.logged(lambda line: line["event"] == "log trouble" and line["kind"] == "write")
        assert (told["reason"], told["count"]) == (reason, 1)
        states = [p.status.state for p in (await client.process_list()).values()]
        assert states == ["running"] * (writers.count + 1)
        # A wait for a disk in trouble would have no end; a loaded machine makes the shortest one longer.
        assert writers.longest_wait <= patience(LONGEST_WAIT)
        record_property("longest_wait_ms", round(1000 * writers.longest_wait, 3))


async def test_once_there_is_room_again_logs_go_on_and_that_is_told(disk: Disk, tmp_path: Path) -> None:
    writers = Writers(tmp_path, 5)
    async with (
        running_daemon(tmp_path, "--logs-dir", str(disk.folder)) as daemon,
        daemon.client() as client,
        Watch(client) as watch,
    ):
        await writers.start(client, watch)
        disk.become_full()
        await writers.more(client, failed=1)
        await daemon.logged(lambda line: line["event"] == "log trouble")
        (disk.folder / "filling").unlink()
        await writers.more(client, written=2)
        await daemon.logged(lambda line: line["event"] == "logs can be written again")
