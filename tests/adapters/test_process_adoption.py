"""Which living processes are taken for those of an earlier daemon."""

import asyncio
import os
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from instance_manager.adapters.process import OsProcessAdopter, descendants, proc
from instance_manager.core.process import ExitStatus, Identity
from instance_manager.platform import contract
from tests.support.processes import descriptors

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


def found(folder: Path) -> dict[str, int]:
    adopter = OsProcessAdopter(OWNER, folder, None)
    return {adoptable.uuid: adoptable.identity.pid for adoptable in adopter.find()}


def test_a_process_of_this_user_that_carries_an_identity_is_found(carry: Carry, tmp_path: Path) -> None:
    pid, identity = carry()
    assert found(tmp_path) == {identity: pid}


def ticks(pid: int) -> int:
    stat = proc.read_stat(pid)
    assert stat is not None
    return stat.start_time


async def ended(pid: int) -> None:
    """Wait until a process has ended; it is not cleared away."""
    pidfd, readable = os.pidfd_open(pid), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(pidfd, readable.set)
    try:
        async with asyncio.timeout(20):
            await readable.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


def test_a_process_in_the_middle_of_an_execve_is_found_and_taken_over(
    carry: Carry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shows no environment then, and whoever took that for somebody else's process would lose it."""
    pid, identity = carry()
    read, looks = proc._read, iter(range(12))

    def blind(path: str) -> bytes:
        return b"" if path == f"/proc/{pid}/environ" and next(looks, None) is not None else read(path)

    marks = proc.read_provenance

    def unsettled(pid_: int) -> proc.Provenance | None:
        if pid_ == pid and next(looks, None) is not None:
            return proc.Provenance(session=pid, uuid=None, settled=False, ended=False)
        return marks(pid_)

    monkeypatch.setattr(proc, "_read", blind)
    monkeypatch.setattr(proc, "read_provenance", unsettled)
    assert found(tmp_path) == {identity: pid}
    looks = iter(range(5))

    async def adopt() -> bool:
        adopter = OsProcessAdopter(OWNER, tmp_path, None)
        adopted = adopter.adopt(Identity(pid, ticks(pid)), identity, lambda _: None)
        adopter.close()
        return adopted is not None

    assert asyncio.run(adopt())


async def test_one_that_has_ended_but_is_not_cleared_away_is_told_as_its_guard_writes_it(
    carry: Carry, tmp_path: Path
) -> None:
    pid, identity = carry()
    os.kill(pid, signal.SIGKILL)
    await ended(pid)
    adopter = OsProcessAdopter(OWNER, tmp_path, os.getppid())
    told: asyncio.Future[ExitStatus] = asyncio.get_running_loop().create_future()
    assert adopter.adopt(Identity(pid, ticks(pid)), identity, told.set_result) is not None
    (tmp_path / f"{pid}.{ticks(pid)}").write_text("signal SIGKILL\n")
    async with asyncio.timeout(20):
        assert await told == ExitStatus(signal="SIGKILL")


async def test_the_record_of_an_end_is_there_until_whoever_has_read_it_had_time_to_write_it_down(
    tmp_path: Path,
) -> None:
    record = tmp_path / "4711.12"
    record.write_text("code 3\n")
    adopter = OsProcessAdopter(OWNER, tmp_path, None)
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
    adopter = OsProcessAdopter(OWNER, tmp_path, None)
    adopter.find()
    assert adopter.leftover_descendants(Identity(foreign, 1), "of nobody") is None
    leftover_descendants = adopter.leftover_descendants(Identity(foreign, 1), identity)
    assert leftover_descendants is not None
    killing = asyncio.create_task(leftover_descendants.end_tree())
    await ended(left)
    async with asyncio.timeout(20):
        assert await killing is None
    assert proc.read_provenance(foreign).ended is False  # type: ignore[union-attr]


async def test_what_is_left_and_cannot_be_killed_is_described_and_no_longer_waited_for(
    carry: Carry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, identity = carry()
    adopter = OsProcessAdopter(OWNER, tmp_path, None)
    adopter.find()
    leftover = adopter.leftover_descendants(Identity(1, 1), identity)
    assert leftover is not None
    before = descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(descendants, "TIMEOUT", 0.2)
        patch.setattr(signal, "pidfd_send_signal", lambda *_: None)
        remains = await leftover.end_tree()
    assert remains is not None
    assert remains.startswith(f"pid {left} (sleep) is in state S (sleeping)")
    assert descriptors() == before


def test_of_two_that_lead_a_session_the_older_one_is_the_instance(carry: Carry, tmp_path: Path) -> None:
    """The other is a descendant, which inherits the environment, whatever order /proc lists them in."""
    pid, identity = carry()
    younger = carry(identity=identity)[0]
    while ticks(younger) == ticks(pid):  # started in the same hundredth of a second
        younger = carry(identity=identity)[0]
    assert found(tmp_path) == {identity: pid}


@pytest.mark.parametrize(("later", "other"), [(1, ""), (0, "other")], ids=["start time", "UUID"])
async def test_neither_with_another_start_time_nor_with_another_uuid_is_a_process_taken_over(
    carry: Carry, tmp_path: Path, later: int, other: str
) -> None:
    """Check 11: each of the two alone is enough to leave a recycled PID alone."""
    pid, identity = carry()
    adopter = OsProcessAdopter(OWNER, tmp_path, None)
    assert adopter.adopt(Identity(pid, ticks(pid) + later), other or identity, lambda _: None) is None
    assert adopter.adopt(Identity(pid, ticks(pid)), identity, lambda _: None) is not None
    adopter.close()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can start processes as another user")
def test_a_process_of_another_user_is_not_believed(carry: Carry, tmp_path: Path) -> None:
    pid, _ = carry(user=65534)
    assert proc.read_user(pid) == 65534
    assert found(tmp_path) == {}


def test_a_process_that_is_gone_has_no_user() -> None:
    assert proc.read_user(2**22 + 1) is None
