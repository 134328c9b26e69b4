"""Three schedulers beside greedy clients: none, that of ADR 8, and that of today; prints JSON.

    python benchmarks/fairness.py [--connections 50] [--depth 1] [--processes 500] [--seconds 5] [--runs 3]

For each run and scheduler a daemon is started with so many processes. The worst of all runs counts.

- `delete_p99_ms`: of one client beside greedy ones that call ProcessList without pause (a process of their
  own: each connection keeps `--depth` calls under way).
- `lists_per_second`: what the greedy clients get while nobody deletes.
- `read_p99_ms`, `read_max_ms`: of ProcessGet at a steady rate that leaves the CPU idle most of the time;
  `sequential_reads_per_second`: of a client that makes one call after the other.

All share the machine: compare the figures of one report only.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from former_scheduler import Turns

from instance_manager.api.interceptors import chain
from instance_manager.cli import main as command_line
from instance_manager.client import Client
from tests.support.daemon import Daemon, sleeper
from tests.support.hammer import hammer

_SERVE = "--serve-with"
_FEWEST = 10
"""Deletes to measure, however long they take."""
_STEADY_RATE = 700
"""Calls per second: the rate at which the scheduler of ADR 8 was late by seconds."""
_LOWER_IS_BETTER = ("delete_p50_ms", "delete_p99_ms", "read_p99_ms", "read_max_ms")


class NoScheduler:
    """Every call is answered as it comes."""

    def on_accepted(self) -> None:
        """Do nothing."""

    def on_arrived(self) -> None:
        """Do nothing."""

    async def wait(self, client: str, *, changes: bool, size: int) -> None:
        """Do not wait."""


class FormerScheduler(NoScheduler):
    """That of ADR 8."""

    def __init__(self) -> None:
        self._turns = Turns()

    async def wait(self, client: str, *, changes: bool, size: int) -> None:
        """Wait for a turn."""
        await self._turns.wait(client, change=changes, size=size)


SCHEDULERS: dict[str, type[NoScheduler] | None] = {
    "without": NoScheduler,
    "before": FormerScheduler,
    "after": None,
}


def serve(name: str, arguments: list[str]) -> None:
    """Be the daemon, with another scheduler."""
    scheduler: Any = SCHEDULERS[name]
    if scheduler is not None:
        chain.FairScheduler = scheduler  # type: ignore[attr-defined]
    sys.argv = ["instance-manager", *arguments]
    command_line()


def quantiles(milliseconds: list[float], name: str) -> dict[str, float]:
    """Return the median, the 99th percentile and the maximum."""
    cuts = statistics.quantiles(milliseconds, n=100, method="inclusive")
    values = {"p50": cuts[49], "p99": cuts[98], "max": max(milliseconds)}
    return {f"{name}_{key}_ms": round(value, 2) for key, value in values.items()}


async def timed(call: Any) -> float:
    """Return the milliseconds that a call took."""
    begin = time.perf_counter()
    await call
    return (time.perf_counter() - begin) * 1000


async def deletes(client: Client, seconds: float) -> dict[str, float]:
    """Create and delete processes one after the other, and measure the deletes."""
    took: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(took) < _FEWEST:
        name = f"single-{len(took)}"
        await client.process_create(sleeper(name))
        took.append(await timed(client.process_delete(name)))
    return quantiles(took, "delete")


async def steady_reads(client: Client, seconds: float) -> dict[str, float]:
    """Call at a steady rate, without waiting for the answers, and measure how long they took."""
    begin = time.perf_counter()
    calls = []
    for number in range(int(_STEADY_RATE * seconds)):
        await asyncio.sleep(max(0.0, begin + number / _STEADY_RATE - time.perf_counter()))
        calls.append(asyncio.create_task(timed(client.process_get("p0"))))
    return quantiles(await asyncio.gather(*calls), "read")


async def sequential_reads(client: Client, seconds: float) -> float:
    """Return how many calls per second a client gets answered that makes one after the other."""
    count, begin = 0, time.perf_counter()
    while (now := time.perf_counter()) < begin + seconds:
        await client.process_get("p0")
        count += 1
    return round(count / (now - begin))


async def measure(scheduler: str, options: argparse.Namespace) -> dict[str, float]:
    """Measure one scheduler."""
    with tempfile.TemporaryDirectory() as folder:
        daemon = Daemon(Path(folder))
        daemon.prefix = (sys.executable, __file__, _SERVE, scheduler)
        try:
            await daemon.start()
            async with daemon.client() as client:
                for number in range(options.processes):
                    await client.process_create(sleeper(f"p{number}"))
                sequential = await sequential_reads(client, options.seconds / 2)
                result = await steady_reads(client, options.seconds)
                async with hammer(daemon.url, options.connections, options.depth) as greedy:
                    await asyncio.sleep(options.seconds)
                async with hammer(daemon.url, options.connections, options.depth):
                    result |= await deletes(client, options.seconds)
        finally:
            await daemon.clean_up()
    throughput = {"lists_per_second": round(greedy.per_second), "sequential_reads_per_second": sequential}
    return {key: value for key, value in result.items() if key in _LOWER_IS_BETTER} | throughput


async def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--depth", type=int, default=1, help="calls under way on each connection")
    parser.add_argument("--processes", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in SCHEDULERS}
    for _ in range(options.runs):
        for name, results in runs.items():
            results.append(await measure(name, options))
    worst = {
        name: {
            key: (max if key in _LOWER_IS_BETTER else min)(result[key] for result in results)
            for key in results[0]
        }
        for name, results in runs.items()
    }
    print(json.dumps({"cpus": os.cpu_count()} | vars(options) | worst | {"every_run": runs}, indent=2))


if __name__ == "__main__":
    if sys.argv[1:2] == [_SERVE]:
        serve(sys.argv[2], sys.argv[3:])
    else:
        uvloop.run(main())
