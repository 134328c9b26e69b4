"""How fast the installed daemon starts and ends processes, and what it costs while they run.

    python benchmarks/lifecycle.py [--processes 500] [--singles 100] [--idle-seconds 10]

Starts a daemon of its own on a Unix socket, with /bin/sleep as the processes, and prints one JSON object.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import grpc
import grpc.aio
import psutil
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from instance_manager.client import Client
from tests.support.daemon import BIN, sleeper


class Told:
    """Counts what a watch tells, cheaply: the client must not be what is measured."""

    def __init__(self, client: Client) -> None:
        self._stream = client.process_watch()
        self._count: Counter[str] = Counter()
        self._waiting: list[tuple[str, int, asyncio.Event]] = []

    async def __aenter__(self) -> Self:
        await self._stream.accepted()
        self._task = asyncio.create_task(self._collect())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stream.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _collect(self) -> None:
        async for change in self._stream:
            state = "deleted" if change.deleted else change.status.state
            self._count[state] += 1
            for wanted, count, event in self._waiting:
                if wanted == state and self._count[state] >= count:
                    event.set()

    def expect(self, state: str, times: int) -> Awaitable[object]:
        """Return what waits until a state has been told so many times from now on."""
        event = asyncio.Event()
        self._waiting = [(state, self._count[state] + times, event)]
        return event.wait()


@asynccontextmanager
async def daemon_process(folder: Path) -> AsyncIterator[psutil.Process]:
    """Run the installed daemon with its log in a file: nobody in this process has to read it."""
    options = ("--listen", f"unix://{folder}/im.sock", "--logs-dir", folder / "logs", "--state-dir", folder)
    with (folder / "daemon.log").open("wb") as log:
        daemon = subprocess.Popen([BIN, "daemon", *options], stderr=log)  # noqa: ASYNC220 - at once
    try:
        with (folder / "daemon.log").open("rb") as lines:
            while b'"serving"' not in lines.read():
                lines.seek(0)
                await asyncio.sleep(0.05)
        yield psutil.Process(daemon.pid)
    finally:
        daemon.terminate()
        daemon.wait()


async def gone(client: Client, name: str) -> None:
    """Ask until the process is not found."""
    while True:
        try:
            await client.process_get(name)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return
            raise


async def timed(work: Awaitable[Any]) -> float:
    """Return how many milliseconds something took."""
    begin = time.perf_counter()
    await work
    return (time.perf_counter() - begin) * 1000


async def singles(client: Client, told: Told, count: int) -> dict[str, Any]:
    """Create and delete one process after the other."""
    running, deleted = [], []
    for number in range(count):
        name = f"single-{number}"

        async def until_running(name: str = name) -> None:
            running = told.expect("running", 1)
            await client.process_create(sleeper(name))
            await running

        async def until_gone(name: str = name) -> None:
            await client.process_delete(name)
            await gone(client, name)

        running.append(await timed(until_running()))
        deleted.append(await timed(until_gone()))
    return {"create_to_running_ms": spread(running), "delete_to_absent_ms": spread(deleted)}


def spread(values: list[float]) -> dict[str, float]:
    """Return the median and the 99th percentile."""
    return {
        "median": round(statistics.median(values), 2),
        "p99": round(statistics.quantiles(values, n=100)[98], 2),
    }


async def storm(
    process: psutil.Process, client: Client, told: Told, count: int, idle: float
) -> dict[str, Any]:
    """Create many at once, let them idle, delete them at once."""
    names = [f"storm-{number}" for number in range(count)]

    async def all_running() -> None:
        running = told.expect("running", count)
        await asyncio.gather(*(client.process_create(sleeper(name)) for name in names))
        await running

    async def all_gone() -> None:
        deleted = told.expect("deleted", count)
        await asyncio.gather(*(client.process_delete(name) for name in names))
        await deleted

    created = await timed(all_running())
    rss = process.memory_info().rss
    before = process.cpu_times()
    await asyncio.sleep(idle)
    after = process.cpu_times()
    cpu = after.user + after.system - before.user - before.system
    deleted = await timed(all_gone())
    return {
        f"create_{count}_all_running_s": round(created / 1000, 3),
        f"delete_{count}_all_gone_s": round(deleted / 1000, 3),
        f"rss_with_{count}_mib": round(rss / 2**20, 1),
        "idle_cpu_percent": round(100 * cpu / idle, 2),
    }


async def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=500)
    parser.add_argument("--singles", type=int, default=100)
    parser.add_argument("--idle-seconds", type=float, default=10)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        async with (
            daemon_process(Path(folder)) as daemon,
            Client(f"unix://{folder}/im.sock") as client,
            Told(client) as told,
        ):
            idle_rss = daemon.memory_info().rss
            result = {"cpus": os.cpu_count(), "rss_idle_mib": round(idle_rss / 2**20, 1)}
            result |= await singles(client, told, args.singles)
            result |= await storm(daemon, client, told, args.processes, args.idle_seconds)
            print(json.dumps(result, indent=2))


if __name__ == "__main__":
    uvloop.run(main())
