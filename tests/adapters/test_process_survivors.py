"""Which living processes are taken for those of an earlier daemon."""

import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from instance_manager.adapters.process import ProcessSurvivors, proc

Carry = Callable[..., tuple[int, str]]
OWNER = f"test-{uuid.uuid4()}"


@pytest.fixture
def carry() -> Iterator[Carry]:
    """Start processes that carry the identity of an instance; none outlives the test."""
    started = []

    def start(user: int | None = None) -> tuple[int, str]:
        identity = str(uuid.uuid4())
        environment = {proc.OWNER_VARIABLE: OWNER, proc.NAME_VARIABLE: "a", proc.UUID_VARIABLE: identity}
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
    survivors = ProcessSurvivors(OWNER, folder, None)
    return {survivor.uuid: survivor.identity.pid for survivor in survivors.find()}


def test_a_process_of_this_user_that_carries_an_identity_is_found(carry: Carry, tmp_path: Path) -> None:
    pid, identity = carry()
    assert found(tmp_path) == {identity: pid}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can start processes as another user")
def test_a_process_of_another_user_is_not_believed(carry: Carry, tmp_path: Path) -> None:
    pid, _ = carry(user=65534)
    assert proc.read_user(pid) == 65534
    assert found(tmp_path) == {}


def test_a_process_that_is_gone_has_no_user() -> None:
    assert proc.read_user(2**22 + 1) is None
