"""Fixtures for tests that need an SPDK service."""

from collections.abc import AsyncIterator, Iterator

import pytest

from instance_manager.adapters.engine import Timeouts
from tests.support.engine.served import ProxyClient, served_proxy
from tests.support.service_client import WITHIN
from tests.support.spdk.process import SpdkProcess

ELSEWHERE = "127.0.0.2"
"""Host of the service of another node."""


@pytest.fixture(scope="session")
def spdk_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SpdkProcess]:
    """The one service of this test process; it takes a second to start."""
    with SpdkProcess(tmp_path_factory.mktemp("spdk")) as running:
        yield running


@pytest.fixture(scope="session")
def spdk_elsewhere_process(
    tmp_path_factory: pytest.TempPathFactory, spdk_process: SpdkProcess
) -> Iterator[SpdkProcess]:
    """One of another node: at another address of this machine, on the same port."""
    port = spdk_process.address.rpartition(":")[2]
    with SpdkProcess(tmp_path_factory.mktemp("elsewhere"), f"{ELSEWHERE}:{port}") as running:
        yield running


@pytest.fixture
async def spdk_elsewhere(spdk_elsewhere_process: SpdkProcess) -> AsyncIterator[SpdkProcess]:
    """The service of another node, as good as new, which it is for tests that do not ask for it, too."""
    await spdk_elsewhere_process.renew()
    yield spdk_elsewhere_process
    await spdk_elsewhere_process.renew()


@pytest.fixture
async def spdk(spdk_process: SpdkProcess) -> SpdkProcess:
    """A service that holds nothing and does what it is asked."""
    await spdk_process.renew()
    return spdk_process


@pytest.fixture
async def v2_proxy(spdk: SpdkProcess) -> AsyncIterator[ProxyClient]:
    """The proxy of a node with an SPDK service."""
    async with served_proxy(Timeouts(call=WITHIN), spdk=spdk.address) as running:
        yield running.client
