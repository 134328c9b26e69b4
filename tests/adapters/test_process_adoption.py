"""Which living processes are taken for those of an earlier daemon."""

import asyncio
import dataclasses
import errno
import os
import re
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from instance_manager.adapters.process import SessionContainment, handles, slices
from instance_manager.adapters.process.session import descendants, leaders, search
from instance_manager.app.interfaces import Adoptable
from instance_manager.core.adoption import UNKNOWN_EXIT
from instance_manager.core.process import ExitStatus, Identity
from instance_manager.guard import proc as guard_proc
from instance_manager.platform import contract, proc, reading
from tests.support.patience import patience
from tests.support.processes import an_adopter, descriptors, lives, raising, ticks

Carry = Callable[..., tuple[int, str]]
OWNER = f"test-{uuid.uuid4()}"


@pytest.fixture
def carry() -> Iterator[Carry]:
    """Start processes that carry the identity of an instance; none outlives the test."""
    started = []

    def start(user: int | None = None, identity: str = "") -> tuple[int, str]:
        identity = identity or str(uuid.uuid4())
        environment = {
            contract.OWNER_VARIABLE: OWNER,
            contract.NAME_VARIABLE: "a",
            contract.UUID_VARIABLE: identity,
        }
        process = subprocess.Popen(
            ["/bin/sh", "-c", "echo; exec sleep 1000"],
            env=environment,
            start_new_session=True,
            user=user,
            stdout=subprocess.PIPE,
        )
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()  # from here on it shows its environment
        return process.pid, identity

    yield start
    for process in started:
        process.kill()
        process.communicate()


async def found(folder: Path) -> dict[str, int]:
    findings = await an_adopter(folder, owner=OWNER).find(thorough=True)
    return {adoptable.uuid: adoptable.identity.pid for adoptable in findings.adoptable}


def never(_: object) -> None:
    raise AssertionError("called")


async def test_a_process_of_this_user_that_carries_an_identity_is_found(carry: Carry, tmp_path: Path) -> None:
    pid, identity = carry()
    assert await found(tmp_path) == {identity: pid}


async def ended(pid: int) -> None:
    """Wait until a process has ended; it is not cleared away."""
    pidfd, readable = os.pidfd_open(pid), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(pidfd, readable.set)
    try:
        async with asyncio.timeout(patience(20)):
            await readable.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


async def test_a_process_in_the_middle_of_an_execve_is_found(
    carry: Carry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shows no environment then, and whoever took that for somebody else's process would lose it."""
    pid, identity = carry()
    read, looks = proc._read, iter(range(3))

    def blind(path: str) -> bytes | None:
        return b"" if path == f"/proc/{pid}/environ" and next(looks, None) is not None else read(path)

    monkeypatch.setattr(proc, "_read", blind)
    assert await found(tmp_path) == {identity: pid}


async def test_one_that_has_ended_but_is_not_cleared_away_is_told_as_its_guard_writes_it(
    carry: Carry, tmp_path: Path
) -> None:
    pid, identity = carry()
    os.kill(pid, signal.SIGKILL)
    await ended(pid)
    adopter = an_adopter(tmp_path, os.getppid(), owner=OWNER)
    told: asyncio.Future[ExitStatus] = asyncio.get_running_loop().create_future()
    assert adopter.adopt(Identity(pid, ticks(pid)), identity, told.set_result, never) is not None
    (tmp_path / f"{pid}.{ticks(pid)}").write_text("signal SIGKILL\n")
    async with asyncio.timeout(patience(20)):
        assert await told == ExitStatus(signal="SIGKILL")


async def test_the_record_of_an_end_is_there_until_whoever_has_read_it_had_time_to_write_it_down(
    tmp_path: Path,
) -> None:
    record = tmp_path / "4711.12"
    record.write_text("code 3\n")
    adopter = an_adopter(tmp_path, owner=OWNER)
    assert adopter.exit_status(Identity(4711, 12)) == ExitStatus(code=3)
    assert record.exists()
    await asyncio.sleep(0)
    assert not record.exists()


async def test_of_what_is_left_of_an_ended_process_nothing_else_is_touched(
    carry: Carry, tmp_path: Path
) -> None:
    """The session of one that ended long ago may be another's by now."""
    left, identity = carry()
    foreign, _ = carry()
    adopter = an_adopter(tmp_path, owner=OWNER)
    assert await adopter.leftover_descendants(Identity(foreign, 1), "of nobody").end_tree() is None
    leftover_descendants = adopter.leftover_descendants(Identity(foreign, 1), identity)
    killing = asyncio.create_task(leftover_descendants.end_tree())
    await ended(left)
    async with asyncio.timeout(patience(20)):
        assert await killing is None
    assert lives(foreign)


async def test_what_is_left_and_cannot_be_killed_is_described_and_no_longer_waited_for(
    carry: Carry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, identity = carry()
    adopter = an_adopter(tmp_path, owner=OWNER)
    leftover = adopter.leftover_descendants(Identity(1, 1), identity)
    before = descriptors()
    with monkeypatch.context() as patch:
        # Long enough for a look at all processes.
        patch.setattr(descendants, "TIMEOUT", patience(0.2))
        patch.setattr(signal, "pidfd_send_signal", lambda *_: None)
        remains = await leftover.end_tree()
    assert remains is not None
    assert re.match(rf"pid {left} \(sleep\) is in state [SR] \((sleeping|running)\)", remains)
    assert descriptors() == before


async def test_of_two_that_lead_a_session_the_older_one_is_the_instance(carry: Carry, tmp_path: Path) -> None:
    """The other is a descendant, which inherits the environment, whatever order /proc lists them in."""
    pid, identity = carry()
    younger = carry(identity=identity)[0]
    while ticks(younger) == ticks(pid):  # started in the same hundredth of a second
        younger = carry(identity=identity)[0]
    assert await found(tmp_path) == {identity: pid}


async def test_with_another_start_time_a_process_is_not_taken_over(carry: Carry, tmp_path: Path) -> None:
    """Check 11: a recycled PID is left alone."""
    pid, identity = carry()
    adopter = an_adopter(tmp_path, owner=OWNER)
    assert adopter.adopt(Identity(pid, ticks(pid) + 1), identity, never, never) is None
    assert adopter.adopt(Identity(pid, ticks(pid)), identity, never, never) is not None
    adopter.close()


SHORTAGES = {
    "no descriptor": OSError(errno.EMFILE, "Too many open files"),
    "refused": OSError(errno.EACCES, "Permission denied"),
    "input/output error": OSError(errno.EIO, "Input/output error"),
}


@pytest.mark.parametrize("place", ["pidfd_open", "open", "read"])
@pytest.mark.parametrize("shortage", SHORTAGES.values(), ids=SHORTAGES)
async def test_a_process_that_cannot_be_looked_at_is_neither_gone_nor_signalled_until_it_can(
    carry: Carry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shortage: OSError, place: str
) -> None:
    pid, identity = carry()
    real, failing = getattr(os, place), True

    def fail(*arguments: Any, **more: Any) -> Any:
        if failing and sys._getframe(1).f_code.co_filename in {proc.__file__, handles.__file__}:
            raise shortage
        return real(*arguments, **more)

    known = Identity(pid, ticks(pid))
    monkeypatch.setattr(os, place, fail)
    adopter = an_adopter(tmp_path, owner=OWNER)
    exits: asyncio.Queue[ExitStatus] = asyncio.Queue()
    doubts: asyncio.Queue[str] = asyncio.Queue()
    child = adopter.adopt(known, identity, exits.put_nowait, doubts.put_nowait)
    assert child is not None
    child.signal("SIGTERM", session=False)
    async with asyncio.timeout(patience(30)):
        assert str(shortage.strerror) in await doubts.get()
        assert str(shortage.strerror) in child.describe()
        assert exits.empty()
        assert lives_by_kill(pid)
        failing = False
        assert await doubts.get() == ""
        assert await exits.get() == UNKNOWN_EXIT
    adopter.close()


async def test_a_process_that_could_not_be_looked_at_and_had_ended_is_reported_then(
    carry: Carry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid, identity = carry()
    known = Identity(pid, ticks(pid) + 1)
    told: asyncio.Queue[str | ExitStatus] = asyncio.Queue()
    adopter = an_adopter(tmp_path, owner=OWNER)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pidfd_open", raising(SHORTAGES["no descriptor"]))
        assert adopter.adopt(known, identity, told.put_nowait, told.put_nowait) is not None
        async with asyncio.timeout(patience(30)):
            assert "Too many open files" in str(await told.get())
    async with asyncio.timeout(patience(30)):
        assert [await told.get(), await told.get()] == ["", UNKNOWN_EXIT]
    adopter.close()
    assert lives(pid), "it is another one"


async def test_processes_that_cannot_be_listed_or_read_are_unclear_and_not_absent(
    carry: Carry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid, _ = carry()
    adopter, read = an_adopter(tmp_path, owner=OWNER), proc._read

    def refuse(path: str) -> bytes | None:
        if path == f"/proc/{pid}/environ":
            raise proc.UnreadableError("refused")
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(proc, "_read", refuse)
        assert Identity(pid, ticks(pid)) in [
            each.identity for each in (await adopter.find(thorough=True)).unclear
        ]
    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", raising(SHORTAGES["no descriptor"]))
        (unclear,) = (await adopter.find(thorough=True)).unclear
    assert "Too many open files" in unclear.reason


async def test_a_process_whose_memory_cannot_be_read_for_hanging_holds_up_nobody(
    carry: Carry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while it hangs in a page fault on a file server that does not answer."""
    hanging, (_, identity) = carry()[0], carry()
    adopter, read, go_on = an_adopter(tmp_path, owner=OWNER), proc._read, threading.Event()

    def hang(path: str) -> bytes | None:
        if path == f"/proc/{hanging}/environ":
            go_on.wait()
        return read(path)

    monkeypatch.setattr(proc, "_read", hang)
    try:
        for _ in range(3):
            findings = await adopter.find(thorough=True)
            assert identity in [each.uuid for each in findings.adoptable]
            assert hanging in [each.identity.pid for each in findings.unclear if each.identity]
        assert isinstance(adopter._containment, SessionContainment)
        assert adopter._containment._reader.hung == 1, "what hangs is not read again"
        assert adopter.adopt(Identity(hanging, ticks(hanging)), "u", never, never) is not None
    finally:
        go_on.set()
    adopter.close()


async def test_reads_that_hang_take_a_bounded_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PATIENCE", 0.01)
    reader, go_on = reading.BoundedReader(), threading.Event()

    def hang(pid: int) -> int:
        go_on.wait()
        return pid

    try:
        read = await reader.read(range(100), hang)
        assert len(read) == 100
        assert all(isinstance(value, proc.UnreadableError) for value in read.values())
        assert reader.hung == reading.MOST_HUNG
    finally:
        go_on.set()
    while reader.hung:  # noqa: ASYNC110 - threads tell nobody
        await asyncio.sleep(0.001)
    assert await reader.read([1, 2], hang) == {1: 1, 2: 2}


async def test_without_a_thread_nothing_is_read_and_that_is_no_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threading.Thread, "start", raising(RuntimeError("can't start new thread")))
    read = await reading.BoundedReader().read([1], lambda pid: pid)
    assert "can't start new thread" in str(read[1])


def lives_by_kill(pid: int) -> bool:
    os.kill(pid, 0)
    return True


@pytest.mark.skipif(os.getuid() != 0, reason="only root can start processes as another user")
async def test_a_process_of_another_user_is_not_believed(carry: Carry, tmp_path: Path) -> None:
    pid, _ = carry(user=65534)
    assert proc.read_user(pid) == 65534
    assert await found(tmp_path) == {}


def test_a_process_that_is_gone_has_no_user() -> None:
    assert proc.read_user(2**22 + 1) is None


async def test_what_was_read_of_a_process_that_got_the_pid_meanwhile_is_not_believed(
    carry: Carry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid, _ = carry()
    adopter = an_adopter(tmp_path, owner=OWNER)
    look = search._look_at

    def later(looked_at: int, owner: str) -> Adoptable | None:
        seen = look(looked_at, owner)
        return seen and dataclasses.replace(seen, identity=Identity(looked_at, seen.identity.start_time + 1))

    monkeypatch.setattr(search, "_look_at", later)
    assert (await adopter.find(thorough=True)).adoptable == ()
    assert lives(pid)


async def test_a_pid_that_is_another_processs_by_now_is_neither_signalled_nor_waited_for(
    carry: Carry,
) -> None:
    pid, identity = carry()
    recycled = pid, ticks(pid) - 1
    assert proc.exists((pid, ticks(pid)))
    assert not proc.exists(recycled)
    assert not descendants._strike(recycled, signal.SIGKILL)
    searching = descendants._Search(leaders.Leader(Identity(*recycled), identity))
    searching.members = {recycled, (pid, ticks(pid))}
    reaper = descendants.DescendantReaper(reading.BoundedReader())
    assert await reaper._forget_ended(searching, slices.Slices())
    assert searching.members == {(pid, ticks(pid))}
    assert lives(pid)


@pytest.mark.parametrize("name", ["a) S 1 1 1", ") ", "(x) Z (y", "a b"])
def test_a_process_is_known_whatever_its_command_is_called(tmp_path: Path, name: str) -> None:
    program = tmp_path / name
    program.symlink_to("/bin/sleep")
    process = subprocess.Popen([program, "1000"], start_new_session=True)
    try:
        stat = proc.read_stat(process.pid)
        assert stat is not None
        assert (stat.command, stat.parent, stat.session) == (name, os.getpid(), process.pid)
        assert not stat.ended
        assert abs(stat.start_time - leaders.boot_ticks()) < 100 * os.sysconf("SC_CLK_TCK")
        assert guard_proc.start_time(process.pid) == str(stat.start_time)
        assert process.pid in guard_proc.living_children()
        assert proc.exists((process.pid, stat.start_time))
    finally:
        process.kill()
        process.wait(20)
    assert process.pid not in guard_proc.living_children()
