"""Which processes are whose, found in one look at all of them."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instance_manager.adapters.process.session.trees import trees
from instance_manager.platform import proc

PIDS = st.integers(1, 12)


def stat(parent: int, session: int) -> proc.Stat:
    return proc.Stat("x", "S", parent, session, 0, 1, kernel_thread=False, environment=(0, 0))


@given(st.dictionaries(PIDS, st.tuples(st.integers(0, 12), PIDS)), st.sets(PIDS))
def test_each_process_belongs_to_the_nearest_leader_and_to_one_only(
    processes: Mapping[int, tuple[int, int]], leaders: set[int]
) -> None:
    stats = {pid: stat(*each) for pid, each in processes.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proc, "all_processes", lambda: list(stats))
        patch.setattr(proc, "read_stat", stats.get)
        found = asyncio.run(trees(leaders))
    assert set(found) == (leaders & set(stats) if leaders else set())
    members = [pid for each in found.values() for pid in each]
    assert len(members) == len(set(members))
    for leader, pids in found.items():
        assert leader in pids
        for pid in set(pids) - {leader}:
            assert stats[pid].session == leader or any(stats[pid].parent in each for each in found.values())


SCRIPT = """
import os, time
if not os.fork():
    os.setsid()
print(os.getpid(), flush=True)
time.sleep(1000)
"""


async def test_a_child_with_a_session_of_its_own_belongs_to_its_parent() -> None:
    reading, writing = os.pipe()
    leader = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SCRIPT, stdout=writing, start_new_session=True
    )
    os.close(writing)
    with os.fdopen(reading) as output:
        pids = {int(await asyncio.to_thread(output.readline)) for _ in range(2)}
    try:
        found = await trees([leader.pid, 1 << 22])
        assert {pid: set(each) for pid, each in found.items()} == {leader.pid: pids}
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        await leader.wait()
