"""What calls that are forwarded to engines cost the daemon; prints JSON, each figure beside its bound.

    python benchmarks/forwards.py [--engines 100] [--seconds 30] [--calls 100000] [--runs 3]

The daemon is the installed one, as shipped. Engines are stand-ins (`tests/support/engine`) in processes of
their own, with three replicas and ten snapshots each.

- `cost_ratio`: CPU of the daemon for a call of MetricsGet, which is one call of the engine, divided by that
  for a call of VersionGet, which answers constant bytes; both on the same server, eight under way.
- `polled_cpu_percent`: of one core, while each engine is asked what a manager asks of it every five seconds:
  `POLLED`. `log_lines_per_minute`: of the log at debug meanwhile.
- `beside_hanging_ratio`: 99th percentile of those calls while one engine answers nothing, divided by the one
  without that. The calls to it are not counted.
- `grown_mib`: memory after so many calls, to ten times as many engines that come and go, less that after the
  first tenth of them.

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
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import psutil
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from instance_manager.api.listeners import Offset
from instance_manager.pb.imrpc import proxy_pb2
from tests.support.daemon import Daemon

POLLED = (
    "VolumeGet",
    "ReplicaList",
    "SnapshotList",
    "SnapshotPurgeStatus",
    "SnapshotCloneStatus",
    "BackupRestoreStatus",
    "ReplicaRebuildingStatus",
)
PERIOD = 5.0
BOUNDS = {
    "cost_ratio": 2.5,
    "polled_cpu_percent": 30,
    "log_lines_per_minute": 60,
    "beside_hanging_ratio": 2,
    "grown_mib": 32,
}
_SERVICE = "/imrpc.ProxyEngineService/"
_CONSTANT = "/imrpc.DiskService/VersionGet"
_UNDER_WAY = 8


class Fleet:
    """Engines in processes of their own."""

    def __init__(self, processes: list[asyncio.subprocess.Process], addresses: list[list[str]]) -> None:
        self._processes = processes
        self.requests = [
            proxy_pb2.ProxyEngineRequest(address=address).SerializeToString()
            for each in addresses
            for address in each
        ]

    async def hang(self, number: str) -> None:
        """Let an engine of the first process answer nothing; all answer if it is empty."""
        process = self._processes[0]
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{number}\n".encode())
        await process.stdout.readline()


@asynccontextmanager
async def fleet(engines: int, replicas: int = 3, snapshots: int = 10) -> AsyncIterator[Fleet]:
    """Run engines during the block, in two processes."""
    program = str(Path(__file__).with_name("engine_fleet.py"))
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, program, str(count), str(replicas), str(snapshots)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 20,
        )
        for count in (engines - engines // 2, engines // 2)
    ]
    try:
        told = [json.loads(await process.stdout.readline()) for process in processes if process.stdout]
        yield Fleet(processes, told)
    finally:
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
            await process.wait()


class Caller:
    """Makes calls to a daemon, and knows what they cost it."""

    def __init__(self, daemon: Daemon, channels: list[grpc.aio.Channel], disk: grpc.aio.Channel) -> None:
        self._channels = channels
        self._disk = disk
        self._process = psutil.Process(daemon.pid)

    def call(self, number: int, method: str, request: bytes) -> Any:
        """Begin a call; its answer is bytes."""
        channel = self._channels[number % len(self._channels)]
        call: Any = channel.unary_unary(_SERVICE + method)
        return call(request, timeout=60)

    def constant(self) -> Any:
        """Begin a call that is answered at once."""
        call: Any = self._disk.unary_unary(_CONSTANT)
        return call(b"", timeout=60)

    def cpu(self) -> float:
        """Return the seconds of CPU that the daemon has used."""
        times = self._process.cpu_times()
        return times.user + times.system

    def memory(self) -> int:
        """Return how many bytes of memory the daemon has."""
        return int(self._process.memory_info().rss)


@asynccontextmanager
async def calling(daemon: Daemon) -> AsyncIterator[Caller]:
    """Connect to the daemon as a manager does: over several connections."""
    addresses = daemon.serving[-1]["addresses"]
    options = (("grpc.use_local_subchannel_pool", 1),)
    channels = [
        grpc.aio.insecure_channel(addresses[offset], options=options)
        for offset in (*[Offset.PROXY] * _UNDER_WAY, Offset.DISK)
    ]
    try:
        yield Caller(daemon, channels[:-1], channels[-1])
    finally:
        for channel in channels:
            await channel.close()


async def _at_once(calls: int, call: Any) -> None:
    """Make so many calls, `_UNDER_WAY` of them at the same time."""
    numbers = iter(range(calls))

    async def some() -> None:
        for number in numbers:
            await call(number)

    await asyncio.gather(*(some() for _ in range(_UNDER_WAY)))


async def cost(caller: Caller, engines: Fleet, calls: int = 500, turns: int = 12) -> dict[str, float]:
    """Compare a forwarded call with one that is answered at once, in turn, as the machine has its moods."""
    requests = engines.requests

    async def forwarded(number: int) -> None:
        await caller.call(number, "MetricsGet", requests[number % len(requests)])

    async def constant(_: int) -> None:
        await caller.constant()

    spent = {"forwarded": 0.0, "constant": 0.0}
    for turn in range(turns):
        for name, call in (("forwarded", forwarded), ("constant", constant)):
            before = caller.cpu()
            await _at_once(calls, call)
            if turn > 1:  # connections are made at first
                spent[name] += caller.cpu() - before
    each = {name: total / calls / (turns - 2) * 1e6 for name, total in spent.items()}
    ratio = {"cost_ratio": each["forwarded"] / each["constant"]}
    return ratio | {f"{name}_cpu_us": value for name, value in each.items()}


async def poll(caller: Caller, engines: Fleet, seconds: float, without: int = -1) -> list[float]:
    """Ask each engine what a manager asks, spread over the time; return how many milliseconds each took."""
    took: list[float] = []

    async def ask(number: int, until: float) -> None:
        await asyncio.sleep(number / len(engines.requests) * PERIOD)
        while time.perf_counter() < until:
            begin = time.perf_counter()
            for method in POLLED:
                sent = time.perf_counter()
                with suppress(*[grpc.aio.AioRpcError] if number == without else []):
                    await caller.call(number, method, engines.requests[number])
                if number != without:
                    took.append((time.perf_counter() - sent) * 1000)
            await asyncio.sleep(begin + PERIOD - time.perf_counter())

    until = time.perf_counter() + seconds
    asking = [asyncio.create_task(ask(number, until)) for number in range(len(engines.requests))]
    done, stuck = await asyncio.wait(asking, timeout=seconds + 2 * PERIOD)
    for task in stuck:
        task.cancel()
    await asyncio.gather(*done)
    return took


async def polled(daemon: Daemon, caller: Caller, engines: Fleet, seconds: float) -> dict[str, float]:
    """Poll, with and without an engine that hangs."""
    await poll(caller, engines, PERIOD)
    cpu, lines, begin = caller.cpu(), len(daemon.lines), time.perf_counter()
    alone = _p99(await poll(caller, engines, seconds))
    took = time.perf_counter() - begin
    cpu, lines = caller.cpu() - cpu, len(daemon.lines) - lines
    await engines.hang("0")
    beside = _p99(await poll(caller, engines, seconds, without=0))
    await engines.hang("")
    return {
        "polled_cpu_percent": cpu / took * 100,
        "log_lines_per_minute": lines / took * 60,
        "beside_hanging_ratio": beside / alone,
        "polled_p99_ms": alone,
        "beside_hanging_p99_ms": beside,
    }


def _p99(milliseconds: list[float]) -> float:
    return statistics.quantiles(milliseconds, n=100, method="inclusive")[98]


async def growth(caller: Caller, engines: int, calls: int) -> dict[str, float]:
    """Call engines that come and go; return by how much the memory has grown since the first of them."""
    after: list[int] = []
    for _ in range(10):
        async with fleet(engines, replicas=1, snapshots=1) as new:

            async def ask(number: int, new: Fleet = new) -> None:
                await caller.call(number, POLLED[number % 2], new.requests[number % len(new.requests)])

            await _at_once(calls // 10, ask)
        after.append(caller.memory())
    return {"grown_mib": (after[-1] - after[0]) / (1 << 20), "memory_mib": after[-1] / (1 << 20)}


async def measure(options: argparse.Namespace) -> dict[str, float]:
    """Measure one daemon."""
    with tempfile.TemporaryDirectory() as folder:
        daemon = Daemon(Path(folder), "--listen", "127.0.0.1:0")
        try:
            await daemon.start()
            async with daemon.client() as client, calling(daemon) as caller:
                await client.set_log_level("debug")
                async with fleet(options.engines) as engines:
                    result = await cost(caller, engines)
                    result |= await polled(daemon, caller, engines, options.seconds)
                result |= await growth(caller, options.engines, options.calls)
        finally:
            await daemon.clean_up()
    return {name: round(value, 2) for name, value in result.items()}


async def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--engines", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    runs = []
    for number in range(options.runs):
        print(f"run {number + 1} of {options.runs} ...", file=sys.stderr)
        runs.append(await measure(options))
    worst = {name: max(run[name] for run in runs) for name in BOUNDS}
    report = {"cpus": os.cpu_count()} | vars(options) | {"bounds": BOUNDS, "worst": worst, "every_run": runs}
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    uvloop.run(main())
