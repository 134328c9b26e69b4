"""Whose listener is on a port: an instance's own, a stranger's, or one of which that cannot be told."""

import functools
import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from instance_manager.adapters.process import ListenerCheck, Reaper, listeners
from instance_manager.core.process import Identity
from tests.support.daemon import port_span
from tests.support.processes import by_session, ticks

LISTEN = """
import socket, sys, time
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
server = socket.create_server((sys.argv[1], int(sys.argv[2])), family=family)
print("listening", flush=True)
time.sleep(1000)
"""


@functools.cache
def ports() -> Iterator[int]:
    """Return the ports of this process, one after the other, again and again."""
    first, last = port_span()
    return itertools.cycle(range(first, last + 1))


class Listening:
    """A process that listens on a port on which nobody else does, at no address."""

    def __init__(self, host: str) -> None:
        self.port = next(ports())
        command = [sys.executable, "-c", LISTEN, host, str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"listening\n"

    @property
    def pid(self) -> int:
        return self.process.pid

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(params=["127.0.0.1", "::1", "0.0.0.0", "::"])
def listening(request: pytest.FixtureRequest) -> Iterator[Listening]:
    started = Listening(request.param)
    yield started
    started.end()


@pytest.fixture
def other() -> Iterator[Listening]:
    started = Listening("127.0.0.1")
    yield started
    started.end()


def check(*leaders: int) -> ListenerCheck:
    """Return a check that knows the leaders of instances, by their PIDs."""
    containment = by_session(Reaper())
    for pid in leaders:
        identity = Identity(pid, ticks(pid))
        containment.leaders[pid] = containment.take_over("u", identity)
    return ListenerCheck(containment.around)


async def test_an_instance_s_own_listener_is_no_stranger(listening: Listening) -> None:
    assert await check().stranger(listening.port, listening.pid) == ""


@pytest.mark.parametrize("mine", ["127.0.0.1", "::1"])
async def test_only_who_listens_at_the_address_counts(mine: str) -> None:
    """An instance may listen at one address of a port, and a stranger at another."""
    own = Listening(mine)
    (theirs,) = {"127.0.0.1", "::1"} - {mine}
    family = socket.AF_INET6 if ":" in theirs else socket.AF_INET
    try:
        with socket.create_server((theirs, own.port), family=family):
            assert await check().stranger(own.port, own.pid, mine) == ""
            assert f"pid {os.getpid()}" in await check().stranger(own.port, own.pid, theirs)
            assert await check().stranger(own.port, own.pid) == ""
    finally:
        own.end()


async def test_an_address_by_which_an_own_listener_is_reached_has_no_stranger(listening: Listening) -> None:
    for host in ("127.0.0.1", "::1"):
        assert await check().stranger(listening.port, listening.pid, host) == ""


async def test_another_instance_s_listener_is_named(listening: Listening, other: Listening) -> None:
    assert (
        await check(listening.pid).stranger(listening.port, other.pid)
        == f"pid {listening.pid} ({Path(sys.executable).name})"
    )


async def test_a_listener_of_nobody_who_can_be_found_is_accepted(
    listening: Listening, other: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: str) -> None:
        raise PermissionError(path)

    monkeypatch.setattr(os, "scandir", refused)
    assert await check(listening.pid).stranger(listening.port, other.pid) == ""


async def test_a_port_without_listener_has_no_stranger() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert await check().stranger(bound.getsockname()[1], os.getpid()) == ""


async def test_the_usual_case_looks_at_the_descriptors_of_one_process(
    listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    holds = listeners._holds

    def counted(pid: int, sockets: set[str]) -> bool | None:
        looked.append(pid)
        return holds(pid, sockets)

    monkeypatch.setattr(listeners, "_holds", counted)
    await check().stranger(listening.port, listening.pid)
    assert looked == [listening.pid]
