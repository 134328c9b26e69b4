"""What the journal costs the event loop for each life of a process, beside what starting a program costs.

    python benchmarks/journal.py [--lifecycles 5000] [--processes 500] [--directory /run]

Takes processes through their lives by the daemon's own table of transitions, writes what the daemon would
write to a journal in a temporary directory, and prints one JSON object. `wall` is for how long the loop is
kept, other programs that take the processor included; `cpu` is what the journal itself takes.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from instance_manager.adapters.journal import SqliteJournal
from instance_manager.app.events import EventLog
from instance_manager.app.interfaces import JournalRecord
from instance_manager.core.actions import Action, Remove
from instance_manager.core.events import Event, Exited, Ready, Spawned, StopRequested, TreeGone
from instance_manager.core.lifecycle import begin, step
from instance_manager.core.ports import PortRange
from instance_manager.core.process import ExitStatus, Identity, Process
from instance_manager.core.spec import ProcessSpec
from instance_manager.platform.linux import boot_id

SPEC = ProcessSpec(
    name="pvc-6f0f3d2c-6a40-4b43-9a3c-2b1f0b1d8f7e-r-5c3a91d0",
    binary="/engine-binaries/longhornio-longhorn-engine-v1.10.0/longhorn",
    args=("replica", "/host/var/lib/longhorn/replicas/pvc-6f0f3d2c", "--size", "10737418240"),
    port_count=10,
    port_args=("--listen,0.0.0.0:",),
    instance_type="replica",
)
LIFE: tuple[Event, ...] = (
    Spawned(Identity(12345, 678901)),
    Ready(),
    StopRequested(),
    Exited(ExitStatus(code=0)),
    TreeGone(),
)


class Measured:
    """The journal with a stopwatch."""

    def __init__(self, journal: SqliteJournal) -> None:
        self._journal = journal
        self._events = EventLog(time.time)
        self.writes = 0
        self.wall = 0.0
        self.cpu = 0.0

    def record(self, before: Process | None, process: Process, actions: tuple[Action, ...]) -> None:
        """Write a transition, as the supervisor does."""
        removed = any(isinstance(action, Remove) for action in actions)
        visible = before is None or before.visible != process.visible
        endings = [False] * visible + [True] * removed
        changes = self._events.prepare(process, before.state if before else None, endings)
        wall, cpu = time.perf_counter(), time.thread_time()
        if removed:
            self._journal.forget(process.uuid, changes)
        else:
            self._journal.record(JournalRecord(process, listed=True), changes)
        self.cpu += time.thread_time() - cpu
        self.wall += time.perf_counter() - wall
        self.writes += 1
        for change in changes:
            self._events.publish(change)

    def live(self, events: tuple[Event, ...]) -> None:
        """Take one process through these events."""
        process, actions = begin(SPEC, str(uuid.uuid4()), PortRange(10000, 10009), {})
        self.record(None, process, actions)
        for event in events:
            before = process
            process, actions = step(process, event)
            if process is not before:
                self.record(before, process, actions)


def timed(work: Callable[[], object]) -> float:
    """Return how many milliseconds something took."""
    begun = time.perf_counter()
    work()
    return (time.perf_counter() - begun) * 1000


def spread(values: list[float]) -> dict[str, float]:
    """Return the median, the 99th percentile and the mean."""
    return {
        "median": round(statistics.median(values), 3),
        "p99": round(statistics.quantiles(values, n=100)[98], 3),
        "mean": round(statistics.mean(values), 3),
    }


def spawn() -> None:
    """Start a program and do not wait for it; the kernel clears it away."""
    os.posix_spawn("/bin/true", ["true"], {}, setsid=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lifecycles", type=int, default=5000)
    parser.add_argument("--processes", type=int, default=500, help="that the journal holds meanwhile")
    parser.add_argument("--directory", type=Path, help="where to put the journal")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.directory) as folder:
        journal = SqliteJournal(Path(folder) / "journal.db", boot_id())
        journal.open()
        measured = Measured(journal)
        for _ in range(args.processes):
            measured.live(LIFE[:2])
        writes, wall, cpu, spawns = measured.writes, [], [], []
        for _ in range(args.lifecycles):
            before = measured.wall, measured.cpu
            measured.live(LIFE)
            wall.append((measured.wall - before[0]) * 1000)
            cpu.append((measured.cpu - before[1]) * 1000)
        writes = (measured.writes - writes) // args.lifecycles
        failures = journal.failures
        journal.close()
    for _ in range(500):
        spawns.append(timed(spawn))
        os.wait()
    result = {
        "lifecycles": args.lifecycles,
        "writes_per_lifecycle": writes,
        "troubles": failures,
        "journal_wall_ms_per_lifecycle": spread(wall),
        "journal_cpu_ms_per_lifecycle": spread(cpu),
        "posix_spawn_ms": spread(spawns),
        "load": os.getloadavg()[0],
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
