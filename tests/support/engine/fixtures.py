"""Fixtures for tests that need a v1 engine."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.engine.process import EngineProcess
from tests.support.engine.served import ProxyClient, served_proxy


@pytest.fixture(scope="session")
def engine_process() -> Iterator[EngineProcess]:
    """The one engine of this test process; it takes a second to start."""
    with EngineProcess() as running:
        yield running


@pytest.fixture
async def engine(engine_process: EngineProcess) -> EngineProcess:
    """An engine with two replicas, as good as new."""
    await engine_process.renew()
    return engine_process


@pytest.fixture
async def proxy() -> AsyncIterator[ProxyClient]:
    """The client of a proxy."""
    async with served_proxy() as served:
        yield served.client
