"""Fixtures for tests that need an SPDK service."""

from collections.abc import Iterator

import pytest

from tests.support.spdk.process import SpdkProcess


@pytest.fixture(scope="session")
def spdk_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SpdkProcess]:
    """The one service of this test process; it takes a second to start."""
    with SpdkProcess(tmp_path_factory.mktemp("spdk")) as running:
        yield running


@pytest.fixture
async def spdk(spdk_process: SpdkProcess) -> SpdkProcess:
    """A service that holds nothing and does what it is asked."""
    await spdk_process.renew()
    return spdk_process
