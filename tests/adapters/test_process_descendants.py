"""What a process leaves behind: found and ended, whatever it did to get away."""

import asyncio
import errno
import os
import signal
import sys
from pathlib import Path

import pytest

from instance_manager.adapters.process.session import descendants
from instance_manager.core.process import ExitStatus
from instance_manager.platform import proc
from tests.support.patience import patience
from tests.support.processes import LagMeter, Started, Workshop, exists, lives, pid_told, raising

DOUBLE_FORK = """
import os, signal, sys, time
if os.fork():
    os.wait()
    os._exit(0)
if os.fork():
    os._exit(0)
"""
"""Python: what follows runs in a grandchild whose parent has ended, and the process itself ends."""


def python(script: str) -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", "-c", script)


async def test_an_orphan_that_holds_stdout_and_ignores_sigint_hinders_nobody_and_is_ended(
    workshop: Workshop,
) -> None:
    started = workshop.spawn(
        *python(
            DOUBLE_FORK + "os.setsid(); signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
            "print(os.getpid(), flush=True); time.sleep(1000)"
        )
    )
    assert await started.exited() == ExitStatus(code=0)
    orphan = await pid_told(workshop)
    os.kill(orphan, signal.SIGINT)
    assert lives(orphan)
    assert await started.child.end_tree() is None
    assert not exists(orphan)
    assert await workshop.output.ended() == b""


async def test_a_process_that_leaves_nothing_is_done_at_once(workshop: Workshop) -> None:
    started = workshop.spawn("/bin/true")
    await started.exited()
    async with asyncio.timeout(patience(4)):
        assert await started.child.end_tree() is None


async def test_orphans_are_found_by_uuid_in_another_session_and_by_session_without_an_environment(
    workshop: Workshop,
) -> None:
    in_another_session = "setsid sh -c 'echo $$; exec sleep 1000' &"
    without_environment = "env -i /bin/sh -c 'echo $$; exec /bin/sleep 1000' &"
    started = workshop.shell(f"{in_another_session} {without_environment}")
    pids = {await pid_told(workshop), await pid_told(workshop)}
    await started.exited()
    assert all(map(lives, pids))
    assert await started.child.end_tree() is None
    assert not any(map(lives, pids))


async def test_the_children_of_orphans_are_found_when_their_parents_are_killed(workshop: Workshop) -> None:
    script = DOUBLE_FORK + (
        "for _ in range(30):\n"
        "    os.setsid() if os.getpid() != os.getsid(0) else None\n"
        "    if os.fork(): time.sleep(1000)\n"
        "print(os.getpid(), flush=True); time.sleep(1000)"
    )
    started = workshop.spawn(*python(script))
    deepest = await pid_told(workshop)
    await started.exited()
    assert len(workshop.marked()) == 31
    assert await started.child.end_tree() is None
    assert not lives(deepest)
    assert workshop.marked() == []


@pytest.mark.parametrize("pause", ["0.01", "0.001", "0"])
async def test_a_chain_that_forks_and_forks_comes_to_its_end(
    workshop: Workshop, pause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descendants, "TIMEOUT", patience(descendants.TIMEOUT))
    script = DOUBLE_FORK + (
        "os.setsid(); print(os.getpid(), flush=True); end = time.monotonic() + 30\n"
        f"while time.monotonic() < end:\n"
        f"    time.sleep({pause})\n"
        "    if os.fork(): os._exit(0)\n"
    )
    started = workshop.spawn(*python(script))
    await pid_told(workshop)
    await started.exited()
    assert await started.child.end_tree() is None
    assert workshop.marked() == []
    assert await workshop.output.ended() == b""  # nor is there one without the marker


@pytest.mark.parametrize("session", ["own", "the leader's"])
async def test_an_orphan_in_the_middle_of_an_execve_is_waited_for(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, session: str
) -> None:
    started = workshop.shell(f"{'setsid' if session == 'own' else ''} sh -c 'echo $$; exec sleep 1000' &")
    orphan = await pid_told(workshop)
    await started.exited()
    looks, read = iter(range(4)), proc.read_environment

    def in_execve(pid: int) -> dict[str, str]:
        if pid == orphan and next(looks, None) is not None:
            raise proc.UnreadableError("not now", passing=True)
        return read(pid)

    monkeypatch.setattr(proc, "read_environment", in_execve)
    assert await started.child.end_tree() is None
    assert not lives(orphan)


async def test_no_orphan_gets_away_by_changing_session_and_program_all_the_time(workshop: Workshop) -> None:
    program = [sys.executable, "-I", "-S", "-c"]
    exec_again = f"os.execv({sys.executable!r}, {program} + [sys.argv[1], sys.argv[1]])"
    loop = "import os, sys\nif os.fork(): os._exit(0)\nos.setsid()\n" + exec_again
    first = DOUBLE_FORK + f"sys.argv = ['', {loop!r}]\nprint('begun', flush=True)\n{exec_again}"
    for _ in range(5):
        started = workshop.spawn(*python(first))
        assert await workshop.output.line() == "begun"
        await started.exited()
        assert await started.child.end_tree() is None
        assert workshop.marked() == []
    assert await workshop.output.ended() == b""


async def test_the_orphans_of_other_processes_are_not_touched(workshop: Workshop) -> None:
    other = workshop.shell("(setsid sh -c 'echo $$; exec sleep 1000' &); exec sleep 1000")
    orphan_of_other = await pid_told(workshop)
    ended = workshop.shell("setsid sh -c 'echo $$; exec sleep 1000' &")
    orphan = await pid_told(workshop)
    await ended.exited()
    assert await ended.child.end_tree() is None
    assert not lives(orphan)
    assert lives(orphan_of_other)
    assert lives(other.pid)
    assert other.reports == []

    other.child.signal("SIGKILL", session=True)
    await other.exited()
    assert await other.child.end_tree() is None
    assert not lives(orphan_of_other)


async def test_an_orphan_with_the_uuid_of_another_belongs_to_that_one_even_in_this_session(
    workshop: Workshop,
) -> None:
    started = workshop.shell("INSTANCE_MANAGER_UUID=other sh -c 'echo $$; exec sleep 1000' &")
    orphan = await pid_told(workshop)
    await started.exited()
    assert await started.child.end_tree() is None
    assert lives(orphan)
    os.kill(orphan, signal.SIGKILL)
    await workshop.reaped(orphan)


async def test_orphans_that_end_by_themselves_leave_no_zombies(workshop: Workshop, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    orphan = f"(setsid sh -c 'echo $$; read line <&3' 3<>{fifo} &)"
    started = workshop.shell(f"for _ in 1 2 3 4 5; do {orphan}; done; exec sleep 1000")
    pids = [await pid_told(workshop) for _ in range(5)]
    to_orphans = os.open(fifo, os.O_RDWR)
    os.write(to_orphans, b"go on\n" * 5)
    for pid in pids:
        await workshop.reaped(pid)
        assert not exists(pid)
    os.close(to_orphans)
    assert lives(started.pid)
    await workshop.end()


async def test_what_cannot_be_killed_is_described(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = workshop.shell("setsid sh -c 'echo $$; exec sleep 1000' &")
    orphan = await pid_told(workshop)
    await started.exited()
    with monkeypatch.context() as patch:
        patch.setattr(descendants, "TIMEOUT", patience(0.2))
        patch.setattr(signal, "pidfd_send_signal", lambda *_: None)
        remains = await started.child.end_tree()
    assert remains is not None
    assert remains.startswith(f"pid {orphan} (sleep) is in state S (sleeping)")
    assert await started.child.end_tree() is None


async def test_a_stopped_orphan_is_ended(workshop: Workshop) -> None:
    started = workshop.shell("setsid sh -c 'echo $$; kill -STOP $$' &")
    orphan = await pid_told(workshop)
    await started.exited()
    assert await started.child.end_tree() is None
    assert not lives(orphan)


async def test_an_orphan_whose_first_thread_has_ended_is_no_zombie_and_is_ended(workshop: Workshop) -> None:
    script = (
        DOUBLE_FORK + "import ctypes, threading; os.setsid()\n"
        "def outlive():\n"
        "    while ') Z ' not in open('/proc/self/stat').read(): time.sleep(0.001)\n"
        "    print(os.getpid(), flush=True); time.sleep(1000)\n"
        "threading.Thread(target=outlive).start()\n"
        "ctypes.CDLL(None).pthread_exit(None)"
    )
    started = workshop.spawn(*python(script))
    orphan = await pid_told(workshop)
    assert not lives(orphan)  # or so it looks
    await started.exited()
    assert await started.child.end_tree() is None
    assert not exists(orphan)


async def test_five_hundred_ends_at_once_do_not_stall_the_event_loop(
    workshop: Workshop, lag: LagMeter
) -> None:
    async def end(started: Started) -> None:
        started.child.signal("SIGKILL", session=False)
        await started.exited()
        assert await started.child.end_tree() is None

    with_orphans = [workshop.shell("(setsid sleep 1000 &); exec sleep 1000") for _ in range(100)]
    without = [workshop.spawn("/bin/sleep", "1000") for _ in range(400)]
    with lag.measuring():
        await asyncio.gather(*map(end, with_orphans + without))
    assert workshop.marked() == []
    assert lag.longest < patience(0.5)


async def test_a_search_for_which_there_is_no_descriptor_goes_on_when_there_is_one(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = workshop.shell("setsid sh -c 'echo $$; exec sleep 1000' &")
    orphan = await pid_told(workshop)
    await started.exited()
    real = os.pidfd_open
    answers = iter(range(3))

    def open_pidfd(pid: int) -> int:
        if next(answers, None) is not None:
            raise OSError(errno.EMFILE, "Too many open files")
        return real(pid)

    monkeypatch.setattr(os, "pidfd_open", open_pidfd)
    assert await started.child.end_tree() is None
    assert not exists(orphan)


async def test_while_nothing_can_be_listed_nothing_is_said_to_be_gone(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = workshop.shell("setsid sh -c 'echo $$; exec sleep 1000' &")
    orphan = await pid_told(workshop)
    await started.exited()
    with monkeypatch.context() as patch:
        patch.setattr(descendants, "TIMEOUT", patience(0.2))
        patch.setattr(proc, "children_of", raising(proc.UnreadableError("Too many open files")))
        assert await started.child.end_tree() == "looking for descendants failed: Too many open files"
    assert await started.child.end_tree() is None
    assert not exists(orphan)
