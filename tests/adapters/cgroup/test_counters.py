"""What the kernel counts: texts as a machine with all controllers has told them, and what this one tells."""

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instance_manager.adapters.cgroup import CgroupContainment
from instance_manager.adapters.cgroup.counters import keyed, out_of_memory, transferred, usage
from instance_manager.adapters.cgroup.folder import Folder
from instance_manager.adapters.cgroup.usage import usage_of_cells
from instance_manager.core.usage import Usage
from instance_manager.platform.reading import BoundedReader
from tests.support.cell_program import METADATA
from tests.support.inmates import Inmate

CPU_STAT = "usage_usec 2500000\nuser_usec 1500000\nsystem_usec 1000000\nnr_periods 0\n"
IO_STAT = """\
8:16 rbytes=1459200 wbytes=314773504 rios=192 wios=353 dbytes=0 dios=0
8:0 rbytes=90430464 wbytes=299008000 rios=8950 wios=1252 dbytes=50331648 dios=3021
7:0
"""
BUSY = """
import os, time
while time.process_time() < 0.2: pass
print(os.getpid(), flush=True)
time.sleep(1000)
"""
EVENTS = "low 0\nhigh 0\nmax 12\noom {oom}\noom_kill {kills}\noom_group_kill {groups}\n"


def test_texts_of_the_kernel_are_read() -> None:
    assert keyed(CPU_STAT)["usage_usec"] == 2500000
    assert transferred(IO_STAT)["rbytes"] == 1459200 + 90430464
    assert transferred(IO_STAT)["wbytes"] == 314773504 + 299008000
    assert transferred("") == {}


@pytest.mark.parametrize(
    ("oom", "kills", "groups", "limit", "expected"),
    [
        (0, 0, 0, "max\n", ""),
        (3, 0, 0, f"{2 << 30}\n", ""),  # refused without a kill, as with oom_score_adj -1000
        (1, 1, 0, f"{2 << 30}\n", "out of memory: limit 2 GiB of this instance"),
        (1, 0, 1, f"{3 << 29}\n", "out of memory: limit 1.5 GiB of this instance"),
        (1, 2, 1, f"{10 << 20}\n", "out of memory: limit 10 MiB of this instance"),
        (1, 2, 1, "4096\n", "out of memory: limit 4 KiB of this instance"),
        (1, 2, 1, "0\n", "out of memory: limit 0 bytes of this instance"),
        # The limit was another one's.
        (
            0,
            1,
            1,
            f"{2 << 30}\n",
            "out of memory: none was left on the machine, or in a cgroup around this one",
        ),
        (1, 1, 0, "max\n", "out of memory: none was left on the machine, or in a cgroup around this one"),
    ],
)
def test_why_the_kernel_has_killed(oom: int, kills: int, groups: int, limit: str, expected: str) -> None:
    events = keyed(EVENTS.format(oom=oom, kills=kills, groups=groups))
    assert out_of_memory(events, limit) == expected


@given(
    st.dictionaries(st.sampled_from(["oom", "oom_kill", "low"]), st.integers(0, 9)), st.integers(0, 1 << 62)
)
def test_something_is_told_if_and_only_if_something_was_killed(events: dict[str, int], limit: int) -> None:
    assert bool(out_of_memory(events, f"{limit}\n")) == bool(events.get("oom_kill"))


def test_what_a_controller_counts_goes_before_what_processes_tell(tmp_path: Path) -> None:
    told = {
        "cpu.stat": CPU_STAT,
        "memory.current": "4096\n",
        "memory.stat": "anon 1000\ninactive_file 96\n",
        "memory.events": "oom 1\noom_kill 3\n",
        "pids.current": "7\n",
        "io.stat": IO_STAT,
    }
    for name, text in told.items():
        (tmp_path / name).write_text(text)
    fd = os.open(tmp_path, os.O_RDONLY)
    counted = usage(Folder(fd, "."), 1.0)
    assert counted == Usage(1.0, 2.5, 4000, None, 7, 91889664, 613781504, 3)
    assert counted.completed_by(Usage(2.0, 0.5, 100, 2, 3, 5, 6)) == replace(counted, processes=2)
    for name in told:
        (tmp_path / name).unlink()
    assert usage(Folder(fd, "."), 1.0) == Usage(1.0)
    os.close(fd)


async def test_cpu_time_of_those_that_have_ended_counts(containment: CgroupContainment) -> None:
    cell = containment.create(METADATA)
    inmate = Inmate(cell, f"exec python3 -S -c '{BUSY}'")
    reader = BoundedReader()
    before = (await usage_of_cells({1: cell}, reader))[1]
    assert before.processes == 1
    assert before.threads == 1
    assert (before.memory_bytes or 0) > 0
    inmate.kill()
    inmate.reap()
    after = (await usage_of_cells({1: cell}, reader))[1]
    assert after.processes == 0
    assert (after.cpu_seconds or 0) >= (before.cpu_seconds or 0) > 0.01
    assert after.since == before.since
    assert abs(after.since - time.time()) < 1000
    assert cell.killed_for_memory() == ""
    assert await cell.end() is None
    assert await usage_of_cells({1: cell}, reader) == {}
