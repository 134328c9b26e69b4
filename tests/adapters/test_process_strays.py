"""What shows nothing of its origin: ended with the instance that has left it, and told if that is unclear."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest
import structlog

from instance_manager.adapters.process import SessionContainment
from instance_manager.adapters.process.session import descendants
from instance_manager.adapters.process.session.descendants import DescendantReaper
from instance_manager.adapters.process.session.leaders import Leader, boot_ticks
from instance_manager.core.process import ExitStatus, Identity
from instance_manager.platform import contract, proc
from instance_manager.platform.reading import BoundedReader
from tests.support.patience import patience
from tests.support.processes import Started, Workshop, lives, pid_told, raising


def own(workshop: Workshop) -> DescendantReaper:
    """Return what ends the descendants of children."""
    assert isinstance(workshop.containment, SessionContainment)
    return workshop.containment._own


async def a_tick_old(pid: int) -> None:
    """Wait until a process was certainly started before what happens from now on: times are told in ticks."""
    stat = proc.read_stat(pid)
    while stat is None or boot_ticks() <= stat.start_time:  # noqa: ASYNC110 - a hundredth of a second
        await asyncio.sleep(0)


@pytest.fixture
def crowded(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process inherits may have been left by others than instances."""
    monkeypatch.setattr(own(workshop)._census, "_alone", lambda: False)


@pytest.mark.parametrize(
    "command", ["env -i sh -c 'echo $$; sleep 1000'", "sh -c 'echo $$; exec env -i sleep 1000'"]
)
@pytest.mark.parametrize("way", ["setsid {} &", "(setsid {} &);", "(setsid sh -c '' & setsid {} &) &"])
async def test_what_shows_nothing_at_all_is_ended_with_the_only_instance_that_may_have_left_it(
    workshop: Workshop, way: str, command: str
) -> None:
    started = workshop.shell(f"{way.format(command)} exec sleep 1000")
    stray = await pid_told(workshop)
    await a_tick_old(stray)
    started.child.signal("SIGKILL", session=False)
    await started.exited()
    assert await started.child.end_tree() is None
    assert not lives(stray)


async def test_a_program_that_says_that_it_is_no_instance_is_left_alone(workshop: Workshop) -> None:
    """Such as a helper of the guard, or one that thaws file systems."""
    none = f"{contract.UUID_VARIABLE}={contract.NO_INSTANCE}"
    started = workshop.shell(f"(setsid env -i {none} sh -c 'echo $$; sleep 1000' &); exec sleep 1000")
    program = await pid_told(workshop)
    with structlog.testing.capture_logs() as logged:
        started.child.signal("SIGKILL", session=False)
        await started.exited()
        assert await started.child.end_tree() is None
    assert lives(program)
    assert [line for line in logged if line["log_level"] == "warning"] == []
    os.killpg(program, signal.SIGKILL)
    await workshop.reaped(program)


async def test_what_any_of_several_has_left_is_ended_with_the_last_of_them(workshop: Workshop) -> None:
    first = workshop.spawn("/bin/sleep", "1000")
    second = workshop.shell("(setsid env -i sh -c 'echo $$; sleep 1000' &) ; exec sleep 1000")
    stray = await pid_told(workshop)
    await a_tick_old(stray)
    third = workshop.spawn("/bin/sleep", "1000")  # it is younger than the stray
    with structlog.testing.capture_logs() as logged:
        second.child.signal("SIGKILL", session=False)
        await second.exited()
        assert await second.child.end_tree() is None
    assert lives(stray)
    (told,) = [line for line in logged if "cannot tell to which instance" in line["event"]]
    assert told["pid"] == stray
    first.child.signal("SIGKILL", session=False)
    await first.exited()
    assert await first.child.end_tree() is None
    assert not lives(stray)
    assert lives(third.pid)
    await workshop.end()


async def test_what_any_of_several_that_end_together_has_left_is_ended(workshop: Workshop) -> None:
    """It is to be ended, whichever of them it was."""
    first = workshop.spawn("/bin/sleep", "1000")
    second = workshop.shell("(setsid env -i sh -c 'echo $$; sleep 1000' &) ; exec sleep 1000")
    stray = await pid_told(workshop)
    await a_tick_old(stray)
    for each in (first, second):
        each.child.signal("SIGKILL", session=False)
        await each.exited()
    remains = await asyncio.gather(*(each.child.end_tree() for each in (first, second)))
    assert remains == [None, None]
    assert not lives(stray)


@pytest.mark.usefixtures("crowded")
@pytest.mark.parametrize("kind", ["refused", "hangs"])
async def test_a_stray_that_cannot_be_read_delays_no_other_and_is_told(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """It has left the session, and its parent has ended: nothing says whose it is."""
    started = workshop.shell("setsid sh -c 'echo $$; exec sleep 1000' &")
    stray = await pid_told(workshop)
    read, go_on = proc._read, threading.Event()

    def unreadable(path: str) -> bytes | None:
        if path == f"/proc/{stray}/environ":
            if kind == "refused":
                raise proc.UnreadableError("refused")
            go_on.wait()
        return read(path)

    await started.exited()
    others = [workshop.shell("(sleep 1000 &)") for _ in range(3)]
    with monkeypatch.context() as patch:
        patch.setattr(proc, "_read", unreadable)
        patch.setattr(descendants, "TIMEOUT", 30)
        for other in (*others, started):
            await other.exited()
            async with asyncio.timeout(patience(15)):
                remains = await other.child.end_tree()
        assert remains is not None
        assert f"pid {stray} may belong to it" in remains, "no other instance is left"
    go_on.set()
    assert lives(stray)
    while own(workshop)._census._reader.hung:  # noqa: ASYNC110 - threads tell nobody
        await asyncio.sleep(0.001)
    assert await started.child.end_tree() is None
    assert not lives(stray)


@pytest.mark.usefixtures("crowded")
async def test_a_stray_that_need_not_belong_to_an_instance_holds_it_up_for_a_while_only(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody may have brought it here (nsenter, docker exec): it is told, and not killed."""
    started = workshop.shell("setsid sh -c 'echo $$; exec sleep 1000' &")
    stray = await pid_told(workshop)
    await started.exited()
    with monkeypatch.context() as patch, structlog.testing.capture_logs() as logged:
        patch.setattr(proc, "read_environment", raising(proc.UnreadableError("refused")))
        patch.setattr(own(workshop)._census, "hold", 0.2)
        begun, remains = asyncio.get_running_loop().time(), []
        while why := await started.child.end_tree():
            remains.append(why)
            assert not [line for line in logged if line["log_level"] == "warning"]
        assert asyncio.get_running_loop().time() - begun >= 0.2
        assert set(remains) == {f"pid {stray} may belong to it: refused"}
        # Patience with it is over, for whatever it holds up next.
        other = workshop.spawn("/bin/sleep", "1000")
        other.child.signal("SIGKILL", session=False)
        await other.exited()
        assert await other.child.end_tree() is None
    told = [line for line in logged if "cannot tell to which instance" in line["event"]]
    assert [(line["pid"], line["reason"]) for line in told] == [(stray, "refused")]
    assert lives(stray)
    os.kill(stray, signal.SIGKILL)
    await workshop.reaped(stray)


async def test_a_stray_that_may_belong_to_several_is_told_and_holds_up_none(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = [workshop.spawn("/bin/sleep", "1000") for _ in range(2)]
    started = workshop.shell("setsid sh -c 'echo $$; exec sleep 1000' &")
    stray = await pid_told(workshop)
    await started.exited()
    with monkeypatch.context() as patch, structlog.testing.capture_logs() as logged:
        patch.setattr(proc, "read_environment", raising(proc.UnreadableError("refused")))
        patch.setattr(descendants, "TIMEOUT", 30)
        async with asyncio.timeout(patience(15)):
            assert await started.child.end_tree() is None
    told = [line for line in logged if "cannot tell to which instance" in line["event"]]
    assert [(line["pid"], line["reason"]) for line in told] == [(stray, "refused")]
    assert lives(stray)
    os.kill(stray, signal.SIGKILL)
    await workshop.reaped(stray)
    assert all(lives(each.pid) for each in several)
    await workshop.end()


async def test_a_descendant_whose_environment_cannot_be_read_is_known_by_its_session_or_its_parent(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proc, "read_environment", raising(proc.UnreadableError("refused")))
    started = workshop.shell("sh -c 'setsid sh -c \"echo \\$\\$; exec sleep 1000\" & exec sleep 1000' &")
    in_a_session_of_its_own = await pid_told(workshop)
    await started.exited()
    assert await started.child.end_tree() is None or not lives(in_a_session_of_its_own)
    assert not lives(in_a_session_of_its_own)


async def test_what_lived_when_a_process_was_signalled_is_known_afterwards(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A descendant in a session of its own that shows nothing, as in uninterruptible sleep."""
    started = workshop.shell("setsid sh -c 'echo $$; exec env -i /bin/sleep 1000' & exec sleep 1000")
    descendant = await pid_told(workshop)
    await own(workshop)._census.note()
    monkeypatch.setattr(proc, "read_environment", raising(proc.UnreadableError("refused")))
    started.child.signal("SIGKILL", session=False)
    await started.exited()
    assert lives(descendant)
    assert await started.child.end_tree() is None
    assert not lives(descendant)


def leave_one_in_its_session() -> tuple[int, int]:
    """Return the PIDs of a process that has ended, and of one that it has left in its session."""
    command = ["/bin/sh", "-c", "sleep 1000 > /dev/null & echo $!"]
    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE) as foreign:
        out, _ = foreign.communicate()
    return foreign.pid, int(out)


async def test_the_number_of_a_session_that_is_anothers_by_now_is_no_reason_to_kill() -> None:
    """Its leader was another process with the same PID, which has ended and left a process there."""
    foreign, left = leave_one_in_its_session()
    try:
        reaper = DescendantReaper(BoundedReader())
        # The instance had this PID before, and it is not known when it ended.
        remains = await reaper.end(Leader(Identity(foreign, 1), "u"))
        assert remains is not None
        assert f"pid {left} may belong to it" in remains
        assert lives(left)
        reaper.drain()
        with structlog.testing.capture_logs() as logged:
            assert await reaper.end(Leader(Identity(foreign, 1), "u")) is None, "it waits for a while only"
        assert [line["pid"] for line in logged if "cannot tell to which" in line["event"]] == [left]
        assert lives(left)
    finally:
        os.kill(left, signal.SIGKILL)


@pytest.mark.parametrize("place", ["before the stop", "never"])
async def test_a_process_held_by_a_debugger_does_not_keep_the_event_loop_busy(
    workshop: Workshop, place: str
) -> None:
    """Its exit can only be collected when the debugger lets go, and its pidfd is readable all the while."""
    started = workshop.spawn("/bin/sleep", "1000")
    debugger = await traced(workshop, started.pid) if place == "before the stop" else None
    started.child.signal("SIGKILL", session=True)
    rounds, readable = 0, asyncio.Event()
    loop, pidfd = asyncio.get_running_loop(), os.pidfd_open(started.pid)
    loop.add_reader(pidfd, readable.set)
    await asyncio.wait_for(readable.wait(), patience(20))
    loop.remove_reader(pidfd)
    os.close(pidfd)
    if debugger is not None:
        real = os.waitid
        calls = 0

        def count(*arguments: Any) -> Any:
            nonlocal calls
            calls += arguments[0] == os.P_PIDFD
            return real(*arguments)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "waitid", count)
            for rounds in range(1, 500):  # noqa: B007
                await asyncio.sleep(0)
        assert calls <= 5
        assert started.reports == []
        assert f"pid {debugger.pid}" in started.child.describe()
        debugger.child.signal("SIGKILL", session=True)
        await debugger.exited()
    assert await started.exited() == ExitStatus(signal="SIGKILL")
    assert await started.child.end_tree() is None


async def traced(workshop: Workshop, pid: int) -> Started:
    """Return a process that traces another, and waits for nothing."""
    script = (
        "import ctypes, sys, time\n"
        f"assert ctypes.CDLL(None).ptrace(0x4206, {pid}, 0, 0) == 0\n"  # PTRACE_SEIZE
        "print('traces', flush=True); time.sleep(1000)"
    )
    debugger = workshop.spawn(sys.executable, "-I", "-S", "-c", script)
    assert await workshop.output.line() == "traces"
    return debugger
