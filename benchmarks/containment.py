"""What a cell costs: two daemons side by side, one with `--containment session`, one with `cgroup`.

    python benchmarks/containment.py [--rounds 6] [--count 60] [--pause 0.25]

They take turns, in rounds: in succession, and with a pause before each step, as on a quiet node (a kernel
that was not asked for a while takes longer to move a process). Prints medians in milliseconds, and their
ratio, as JSON.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from instance_manager.platform.posix_spawn import can_spawn_into_cgroup
from tests.support.daemon import Daemon, Watch, running_daemon, sleeper

KINDS = ("session", "cgroup")
Figures = dict[str, list[float]]
"""Milliseconds, by step."""


async def turn(daemon: Daemon, count: int, pause: float, figures: Figures) -> None:
    """Create and delete instances, and note how long each has taken."""
    async with daemon.client() as client, Watch(client) as watch:
        for number in range(count):
            name = f"p{number}"
            for step, call, state in (
                ("create → running", partial(client.process_create, sleeper(name)), "running"),
                ("delete → absent", partial(client.process_delete, name), "deleted"),
            ):
                await asyncio.sleep(pause)
                begin = time.perf_counter()
                await call()
                await watch.state(name, state)
                figures.setdefault(step, []).append((time.perf_counter() - begin) * 1e3)


async def compare(rounds: int, count: int, pause: float) -> dict[str, dict[str, float]]:
    """Return the medians of all rounds, by step and containment."""
    figures: dict[str, Figures] = {kind: {} for kind in KINDS}
    async with AsyncExitStack() as stack:
        daemons = {}
        for kind in KINDS:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            daemons[kind] = await stack.enter_async_context(running_daemon(folder, "--containment", kind))
        for _ in range(rounds):
            for kind, daemon in daemons.items():
                await turn(daemon, count, pause, figures[kind])
    told = {}
    for step in figures["session"]:
        session, cgroup = (statistics.median(figures[kind][step]) for kind in KINDS)
        told[step] = {
            "session": round(session, 2),
            "cgroup": round(cgroup, 2),
            "ratio": round(cgroup / session, 2),
        }
    return told


async def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--pause", type=float, default=0.25)
    options = parser.parse_args()
    told = {
        "starts in the cgroup": can_spawn_into_cgroup(),
        "in succession": await compare(options.rounds, options.count, 0),
        "with a pause": await compare(options.rounds, max(1, options.count // 6), options.pause),
    }
    print(json.dumps(told, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    asyncio.run(main())
