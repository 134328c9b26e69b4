"""Many engines of the tests in one process, for benchmarks.

    python benchmarks/engine_fleet.py ENGINES REPLICAS SNAPSHOTS

A line of JSON on stdout tells the addresses of the controllers. Each line on stdin is the number of an engine
which from then on answers nothing; an empty one lets all of them answer. It ends at the end of stdin.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support.engine.program import Engine


async def main(count: int, replicas: int, snapshots: int) -> None:
    """Serve until stdin ends."""
    engines = [Engine("127.0.0.1", 0, f"volume-{number}", replicas) for number in range(count)]
    for engine in engines:
        await engine.start()
        await engine.obey({"snapshots": snapshots})
    print(json.dumps([engine.address for engine in engines]), flush=True)
    async with asyncio.TaskGroup() as group:
        group.create_task(_forget(engines))
        await _obey(engines)


async def _obey(engines: list[Engine]) -> None:
    while line := await asyncio.to_thread(sys.stdin.readline):
        for engine in engines if not line.strip() else [engines[int(line)]]:
            await engine.obey({"hang": "*", "at": "*"} if line.strip() else {"work": True})
        print("done", flush=True)
    # Closing some hundred servers one by one takes longer than most measurements.
    os._exit(0)


async def _forget(engines: list[Engine]) -> None:
    """Keep no record of the calls, which is for tests."""
    while True:
        await asyncio.sleep(1)
        for engine in engines:
            engine.faults.calls.clear()


if __name__ == "__main__":
    uvloop.run(main(*map(int, sys.argv[1:])))
