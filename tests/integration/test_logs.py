"""What processes write is kept, bounded and shown, and harms nobody."""

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import grpc.aio
import psutil
import pytest
from asyncinotify import Inotify, Mask

from tests.support.daemon import Daemon, Watch, running_daemon, shell, sleeper, stub
from tests.support.disks import tmpfs
from tests.support.patience import patience

Sized = Callable[[int, int], int]


async def lines_of(daemon: Daemon, name: str) -> list[str]:
    async with daemon.client() as client:
        return [line async for line in client.process_log(name)]


async def test_a_line_of_100_kb_is_whole_and_hides_nothing_behind_it(daemon: Daemon) -> None:
    script = "echo first; head -c 100000 /dev/zero | tr '\\0' x; echo; echo last"
    async with daemon.client() as client, Watch(client) as watch:
        await client.process_create(shell("a", script))
        await watch.state("a", "stopped")
    assert await lines_of(daemon, "a") == ["first", "x" * 100_000, "last"]


async def test_the_log_of_a_deleted_process_can_still_be_read(daemon: Daemon) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        await client.process_create(shell("a", "echo out; echo err >&2"))
        await watch.state("a", "stopped")
        await client.process_delete("a")
        await watch.state("a", "deleted")
    assert await lines_of(daemon, "a") == ["out", "err"]


async def test_the_end_of_a_log_can_be_asked_for_with_metadata(daemon: Daemon) -> None:
    async with daemon.client() as client, Watch(client) as watch:
        await client.process_create(shell("a", "seq 1 1000"))
        await watch.state("a", "stopped")
        assert [line async for line in client.process_log("a", tail=2)] == ["999", "1000"]
        assert len([line async for line in client.process_log("a", tail=10**18 - 1)]) == 1000
        for tail in (-1, 10**18):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                async for _ in client.process_log("a", tail=tail):
                    pass
            assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_lines_are_echoed_on_stdout_with_the_name_of_the_process(tmp_path: Path) -> None:
    async with running_daemon(tmp_path, "--echo-logs") as daemon, daemon.client() as client:
        await client.process_create(shell("a", "echo hello; printf unfinished"))
        await daemon.echoed(lambda line: line == "[a] hello")
        await client.process_delete("a")
        await daemon.echoed(lambda line: line == "[a] unfinished")


@pytest.mark.timeout(180)
async def test_a_wild_logger_stays_under_its_bound_and_costs_the_daemon_little(
    daemon: Daemon, sized: Sized
) -> None:
    """At full size: 100 MB/s, lines of 100 kB, the default bound of 100 MiB."""
    # A quarter of the bound may come between two looks of the daemon: at most a second, on a busy machine.
    rate, count = sized(250, 1000), sized(1500, 60_000)
    options = ("--log-rate", str(rate), "--log-line-bytes", "99999", "--log-lines", str(count))
    log = daemon.logs / "wild.log"
    largest = 0
    last = f"{count:012d} ".encode()
    process = psutil.Process(daemon.pid)
    async with daemon.client() as client, Watch(client) as watch:
        before = process.cpu_times()
        await client.process_create(stub("wild", *options))
        await watch.state("wild", "running")
        with log.open("rb") as file, Inotify() as written:
            written.add_watch(log, Mask.MODIFY)
            while True:
                size = log.stat().st_size
                largest = max(largest, size)
                if os.pread(file.fileno(), len(last), max(0, size - 100_000)) == last:
                    break
                await written.get()
        after = process.cpu_times()
    cpu = after.user + after.system - before.user - before.system
    assert 50 << 20 < largest <= 100 << 20
    assert cpu < patience(0.5 * count / rate), "half of one CPU, as long as so many lines take at their rate"
    numbers = [int(line[:12]) for line in log.read_bytes().splitlines() if line[:12].isdigit()]
    assert numbers == list(range(numbers[0], count + 1))
    assert len(numbers) > 100


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    with tmpfs(tmp_path / "tiny", "size=1m") as folder:
        yield folder


async def test_a_full_log_disk_ends_no_process_and_blocks_none(tiny_disk: Path, tmp_path: Path) -> None:
    async with (
        running_daemon(tmp_path, "--logs-dir", str(tiny_disk)) as daemon,
        daemon.client() as client,
        Watch(client) as watch,
    ):
        await client.process_create(stub("noisy", "--log-rate", "1000", "--log-line-bytes", "1000", ports=1))
        await watch.state("noisy", "running")
        async with asyncio.timeout(patience(20)):
            while os.statvfs(tiny_disk).f_bavail:
                await client.health()
        await client.process_create(stub("late"))
        await watch.state("late", "running")
        states = {name: p.status.state for name, p in (await client.process_list()).items()}
        assert states == {"noisy": "running", "late": "running"}


async def test_a_log_directory_that_cannot_be_written_ends_no_process(tmp_path: Path) -> None:
    blocked = Path("/proc/no-such-place")
    async with (
        running_daemon(tmp_path, "--logs-dir", str(blocked)) as daemon,
        daemon.client() as client,
        Watch(client) as watch,
    ):
        await client.process_create(sleeper("a"))
        await watch.state("a", "running")
        trouble = await daemon.logged(lambda line: line["event"] == "log trouble")
        assert trouble["path"].startswith(str(blocked))
