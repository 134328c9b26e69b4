"""Fixtures for tests that need a v1 engine."""

from collections.abc import Iterator

import pytest

from tests.support.engine.process import EngineProcess


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
