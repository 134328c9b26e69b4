"""A daemon with many processes stays small however long it works, and costs nothing while nothing happens."""

import asyncio
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from instance_manager.client import Client
from tests.support.daemon import Daemon, Watch, running_daemon, sleeper
from tests.support.patience import patience

Sized = Callable[[int, int], int]

MOST_MEMORY = 150 << 20
"""Bytes a daemon with 1,000 processes may take."""
MOST_GROWTH = 2 << 20
"""Bytes it may grow by once it is warm: over 3,750 processes that come and go in full size.

The allocator takes memory in steps of up to 1 MiB; 1 KiB kept of each process would be twice this.
"""
MOST_IDLE_CPU = 0.005
"""Share of one CPU that it may take while nobody asks for anything."""
OPERATIONS_A_ROUND = 10
"""A process is created, asked for, listed and deleted; see `work`."""


async def fill(client: Client, watch: Watch, count: int) -> None:
    """Start so many processes that do nothing."""
    for begin in range(0, count, 20):
        names = [f"idle-{n}" for n in range(begin, min(begin + 20, count))]
        await asyncio.gather(*(client.process_create(sleeper(name)) for name in names))
    await watch.until(lambda seen: sum(c.status.state == "running" for c in seen) >= count, within=120)


async def work(client: Client, numbers: Iterator[int], listed: int) -> None:
    """Create, get, list and delete, as a controller does, until the numbers are used up."""
    for number in numbers:
        name = f"busy-{number}"
        uuid = (await client.process_create(sleeper(name))).status.uuid
        for _ in range(OPERATIONS_A_ROUND - 3):
            assert (await client.process_get(name)).status.uuid == uuid
        assert len(await client.process_list()) > listed
        await client.process_delete(name, uuid)


async def resting(client: Client, listed: int) -> None:
    """Wait until only the idle processes are left."""
    async with asyncio.timeout(patience(30)):
        while len(await client.process_list()) > listed:
            pass


async def idle_cpu(process: psutil.Process, seconds: float) -> float:
    """Return the share of one CPU that a process takes while nobody asks it for anything."""
    before = process.cpu_times()
    await asyncio.sleep(seconds)  # what is measured is the time in which nothing happens
    after = process.cpu_times()
    return (after.user + after.system - before.user - before.system) / seconds


@pytest.mark.timeout(3600)
async def test_memory_is_bounded_and_flat_over_many_operations_and_idling_costs_nothing(
    tmp_path: Path, sized: Sized, record_property: Callable[[str, object], None]
) -> None:
    processes, operations = sized(100, 1000), sized(2000, 100_000)
    async with running_daemon(tmp_path) as daemon, daemon.client() as client:
        async with Watch(client) as watch:
            await fill(client, watch, processes)
        process = psutil.Process(daemon.pid)
        filled = process.memory_info().rss
        memory = await memory_while_working(daemon, process, processes, operations)
        idle = await idle_cpu(process, sized(10, 60))
        record_property("memory_mib", [round(size / 2**20, 1) for size in (filled, *memory)])
        record_property("idle_cpu_percent", round(100 * idle, 3))
        assert max(memory) <= MOST_MEMORY
        # The first half is the warm-up: what is kept for later (the history) has been filled by then.
        settled = memory[len(memory) // 2 :]
        assert max(settled) - settled[0] <= MOST_GROWTH, memory
        assert idle <= MOST_IDLE_CPU


async def memory_while_working(
    daemon: Daemon, process: psutil.Process, processes: int, operations: int
) -> list[int]:
    """Carry the operations out; return the memory at eight moments of rest in between."""
    memory = []
    numbers = itertools.count()
    async with daemon.client() as client:
        for _ in range(8):
            some = itertools.islice(numbers, operations // OPERATIONS_A_ROUND // 8)
            await asyncio.gather(*(work(client, some, processes) for _ in range(4)))
            await resting(client, processes)
            memory.append(process.memory_info().rss)
    return memory
