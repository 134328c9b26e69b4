"""Fixtures for tests with real processes, files and sockets."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Mapping

import pytest
import uvloop

from instance_manager.adapters.logs import LogFiles
from tests.support.daemon import BIN
from tests.support.processes import LagMeter, StartWild, Workshop, open_workshop


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run what asks much of the event loop on both, the rest on the daemon's."""
    on_both = item.path.stem.startswith(("test_process", "test_mounts"))
    return {"uvloop": uvloop.new_event_loop} | ({"asyncio": asyncio.new_event_loop} if on_both else {})


@pytest.fixture
async def workshop() -> AsyncIterator[Workshop]:
    """A spawner that is open."""
    async with open_workshop() as opened:
        yield opened


@pytest.fixture
def lag() -> LagMeter:
    """How long the event loop was kept from its work."""
    return LagMeter()


@pytest.fixture
def wild() -> Iterator[StartWild]:
    """Start stubs that write numbered lines as fast as they can; none outlives the test."""
    started = []

    def start(logs: LogFiles, name: str) -> subprocess.Popen[bytes]:
        command = [str(BIN), "stub", "replica", "--listen", "127.0.0.1:0", "--log-rate", "max"]
        with logs.writer(name) as fd:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=fd)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
