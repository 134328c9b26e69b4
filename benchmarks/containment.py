"""What a cell costs: create → running and delete → absent of two daemons side by side, `session` and `cgroup`.

    python benchmarks/containment.py [--rounds 6] [--count 60] [--pause 0.25]

They take turns, in rounds: in succession, and with a pause before each step, as on a quiet node (a kernel that was
not asked for a while takes longer to move a process). Prints medians in milliseconds and their ratio as JSON.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from instance_manager.client import Client
from instance_manager.platform.posix_spawn import can_spawn_into_cgroup
from tests.support.daemon import Watch, running_daemon, sleeper

KINDS = ("session", "cgroup")


async def turn(client: Client, watch: Watch, count: int, pause: float) -> tuple[list[float], list[float]]:
    """Return the seconds that each create and each delete has taken."""
    creates, deletes = [], []
    for number in range(count):
        name = f"p{number}"
        await asyncio.sleep(pause)
        begin = time.perf_counter()
        await client.process_create(sleeper(name))
        await watch.state(name, "running")
        creates.append(time.perf_counter() - begin)
        await asyncio.sleep(pause)
        begin = time.perf_counter()
        await client.process_delete(name)
        await watch.state(name, "deleted")
        deletes.append(time.perf_counter() - begin)
        watch.seen.clear()
    return creates, deletes


async def compare(rounds: int, count: int, pause: float) -> dict[str, object]:
    """Return the medians of each kind, over all rounds."""
    seconds: dict[str, tuple[list[float], list[float]]] = {kind: ([], []) for kind in KINDS}
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        async with (
            running_daemon(Path(one), "--containment", KINDS[0]) as session,
            running_daemon(Path(two), "--containment", KINDS[1]) as cgroup,
            session.client() as first,
            cgroup.client() as second,
            Watch(first) as watch_first,
            Watch(second) as watch_second,
        ):
            for _ in range(rounds):
                for kind, client, watch in zip(
                    KINDS, (first, second), (watch_first, watch_second), strict=True
                ):
                    for all_of_it, part in zip(
                        seconds[kind], await turn(client, watch, count, pause), strict=True
                    ):
                        all_of_it += part
    told: dict[str, object] = {}
    for index, step in enumerate(("create → running", "delete → absent")):
        medians = {kind: statistics.median(seconds[kind][index]) * 1e3 for kind in KINDS}
        told[step] = {kind: round(value, 2) for kind, value in medians.items()} | {
            "cgroup / session": round(medians["cgroup"] / medians["session"], 2)
        }
    return told


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--pause", type=float, default=0.25)
    options = parser.parse_args()
    paused = max(1, options.count // 6)
    print(
        json.dumps(
            {
                "born in the cgroup": can_spawn_into_cgroup(),
                "in succession": await compare(options.rounds, options.count, 0),
                "with a pause": await compare(options.rounds, paused, options.pause),
            },
            indent=2,
            ensure_ascii=False,
        )
    )


if __name__ == "__main__":
    asyncio.run(main())
