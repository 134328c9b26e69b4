"""Many processes end at once, with all that they started, and the event loop hardly notices."""

import asyncio
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from instance_manager.app.interfaces import Child
from instance_manager.core.process import ExitStatus, Identity
from instance_manager.platform import contract, proc
from tests.support.patience import patience
from tests.support.processes import LagMeter, Workshop, an_adopter, lives

Sized = Callable[[int, int], int]

STUBBORN = "trap '' INT; (trap '' INT; setsid sleep 1000 &); sleep 1000 & echo $$; exec sleep 1000"
"""A process that ignores SIGINT, as do its children, one of which has left the session."""
LONGEST_STALL = patience(0.2)
"""Seconds of CPU that the event loop may use before it takes its next turn."""

EARLIER_DAEMON = f"""
import os, signal, subprocess, sys, uuid
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for _ in range(int(sys.argv[1])):
    mark = str(uuid.uuid4())
    environment = dict(os.environ, {contract.UUID_VARIABLE}=mark)
    started = subprocess.Popen(["/bin/sh", "-c", {STUBBORN!r}], env=environment, start_new_session=True,
                               stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    print(int(started.stdout.readline()), mark, flush=True)
print("done", flush=True)
sys.stdin.read()
"""


class Ending:
    """One process on its way to its end."""

    def __init__(self) -> None:
        self.exited = asyncio.Event()
        self.child: Child

    def on_exit(self, _: ExitStatus) -> None:
        self.exited.set()

    async def end(self) -> None:
        """Ask it politely, then kill it and all it has started."""
        self.child.signal("SIGINT", session=False)
        await asyncio.sleep(0)
        self.child.signal("SIGKILL", session=True)
        async with asyncio.timeout(patience(30)):
            await self.exited.wait()
            while await self.child.end_tree() is not None:
                pass


@pytest.fixture
def earlier(sized: Sized) -> Iterator[list[tuple[int, str]]]:
    """Processes of an earlier daemon, by PID, and their UUIDs."""
    marker = str(uuid.uuid4())
    daemon = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", EARLIER_DAEMON, str(sized(100, 500))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "MARK": marker},
        text=True,
    )
    assert daemon.stdout is not None
    found = []
    for line in daemon.stdout:
        if line == "done\n":
            break
        pid, identity = line.split()
        found.append((int(pid), identity))
    yield found
    daemon.kill()
    daemon.communicate()
    assert carrying(marker) == []


def carrying(marker: str) -> list[int]:
    """Return the living processes with a marker in their environment."""
    found = []
    for pid in proc.all_processes():
        try:
            if marker in proc.read_environment(pid).values():
                found.append(pid)
        except proc.UnreadableError:
            continue
    return found


async def test_many_spawned_processes_end_at_once_with_all_they_started(
    workshop: Workshop, lag: LagMeter, sized: Sized
) -> None:
    started = [workshop.shell(STUBBORN) for _ in range(sized(100, 500))]
    for _ in started:
        await workshop.output.line()
    async with asyncio.timeout(patience(30)):
        # One in the middle of its execve shows no environment; nothing tells when it does.
        while len(workshop.marked()) != 3 * len(started):  # noqa: ASYNC110
            await asyncio.sleep(0)
    endings = []
    for each in started:
        ending = Ending()
        ending.child, ending.exited = each.child, each._exited
        endings.append(ending)
    with lag.measuring():
        await asyncio.gather(*(ending.end() for ending in endings))
    assert workshop.marked() == []
    assert lag.longest < LONGEST_STALL


async def test_many_adopted_processes_end_at_once_with_all_they_started(
    earlier: list[tuple[int, str]], lag: LagMeter, tmp_path: Path
) -> None:
    adopter = an_adopter(tmp_path)
    endings = []
    for pid, identity in earlier:
        stat = proc.read_stat(pid)
        assert stat is not None
        ending = Ending()
        child = adopter.adopt(Identity(pid, stat.start_time), identity, ending.on_exit, lambda _: None)
        assert child is not None
        ending.child = child
        endings.append(ending)
    with lag.measuring():
        await asyncio.gather(*(ending.end() for ending in endings))
    adopter.close()
    assert not any(lives(pid) for pid, _ in earlier)
    assert lag.longest < LONGEST_STALL


async def test_a_swarm_of_children_that_ends_at_once_is_reaped_in_slices(
    workshop: Workshop, lag: LagMeter, sized: Sized
) -> None:
    count = sized(1000, 5000)
    script = (
        f"import os, signal, sys\nfor _ in range({count}):\n"
        "    if not os.fork():\n        signal.pause()\n"
        "print('swarm', flush=True); signal.pause()"
    )
    started = workshop.spawn(sys.executable, "-I", "-S", "-c", script)
    assert await workshop.output.line() == "swarm"
    with lag.measuring():
        started.child.signal("SIGKILL", session=True)
        await started.exited()
        while await started.child.end_tree() is not None:
            pass
    assert workshop.marked() == []
    assert lag.longest < LONGEST_STALL


async def test_a_fork_bomb_that_leaves_its_session_is_ended(workshop: Workshop) -> None:
    """Each process forks as fast as it can, in sessions of their own; killing one by one never ends it."""
    script = (
        "import os, time\nprint('begun', flush=True)\nif os.fork(): os._exit(0)\nforks = 0\n"
        "while forks < 11:\n"  # at most two thousand processes, should the test fail
        "    forks += 1\n"
        "    if os.fork(): time.sleep(0.01)\n"
        "    else: os.setsid()\n"
        "time.sleep(1000)"
    )
    started = workshop.spawn(sys.executable, "-I", "-S", "-c", script)
    assert await workshop.output.line() == "begun"
    await started.exited()
    async with asyncio.timeout(patience(30)):
        # With little of the CPU, the first time may not be long enough.
        while await started.child.end_tree() is not None:
            pass
    assert workshop.marked() == []
