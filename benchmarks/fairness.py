"""How long a delete takes while greedy clients list without pause; prints JSON.

    python benchmarks/fairness.py [--connections 50] [--depth 1] [--processes 100] [--seconds 10]

The greedy clients are a process of their own: each connection keeps `--depth` ProcessList calls under way.
Beside them one client creates and deletes processes one after the other; what is told is how long its deletes
took, with and without the others. All share the machine: compare the two figures of one run.
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
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from instance_manager.client import Client
from tests.support.daemon import Daemon, running_daemon, sleeper

_OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1))
_FEWEST = 10
"""Deletes to measure, however long they take."""


async def hammer(url: str, connections: int, depth: int) -> None:
    """List without pause, say so on stdout, and how often when stdin ends."""
    answered = 0
    begun = asyncio.Event()

    async def one(channel: grpc.aio.Channel) -> None:
        nonlocal answered
        call: Any = channel.unary_unary("/ProcessManagerService/ProcessList")
        while True:
            await call(b"", wait_for_ready=True)
            answered += 1
            begun.set()

    target = url.replace("unix://", "unix:")
    channels = [grpc.aio.insecure_channel(target, options=_OWN_CONNECTION) for _ in range(connections)]
    loops = [asyncio.create_task(one(channel)) for channel in channels for _ in range(depth)]
    await begun.wait()
    print("hammering", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    print(answered, flush=True)
    for loop in loops:
        loop.cancel()


async def deletes(client: Client, seconds: float) -> dict[str, Any]:
    """Create and delete processes one after the other and tell how long the deletes took."""
    took: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(took) < _FEWEST:
        name = f"single-{len(took)}"
        await client.process_create(sleeper(name))
        begin = time.perf_counter()
        await client.process_delete(name)
        took.append((time.perf_counter() - begin) * 1000)
    cuts = statistics.quantiles(took, n=100, method="inclusive")
    return {"count": len(took), "p50_ms": round(cuts[49], 2), "p99_ms": round(cuts[98], 2)}


async def beside(daemon: Daemon, connections: int, depth: int, seconds: float) -> dict[str, Any]:
    """Measure deletes alone and then beside greedy clients."""
    async with daemon.client() as client:
        alone = await deletes(client, seconds / 2)
        greedy = await asyncio.create_subprocess_exec(
            *(sys.executable, __file__, "--hammer", daemon.url),
            *("--connections", str(connections), "--depth", str(depth)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert greedy.stdin is not None
        assert greedy.stdout is not None
        await greedy.stdout.readline()
        begin = time.perf_counter()
        measured = await deletes(client, seconds)
        greedy.stdin.close()
        lists = int(await greedy.stdout.readline()) / (time.perf_counter() - begin)
        await greedy.wait()
    return {"lists_per_second": round(lists), "delete_alone": alone, "delete_beside": measured}


async def main() -> None:
    """Measure and print, or be the greedy ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--depth", type=int, default=1, help="calls under way on each connection")
    parser.add_argument("--processes", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--hammer", metavar="URL", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.hammer:
        await hammer(args.hammer, args.connections, args.depth)
        return
    with tempfile.TemporaryDirectory() as folder:
        async with running_daemon(Path(folder)) as daemon:
            async with daemon.client() as client:
                for number in range(args.processes):
                    await client.process_create(sleeper(f"p{number}"))
            result = await beside(daemon, args.connections, args.depth, args.seconds)
    settings = {"connections": args.connections, "depth": args.depth, "processes": args.processes}
    print(json.dumps({"cpus": os.cpu_count()} | settings | result, indent=2))


if __name__ == "__main__":
    uvloop.run(main())
