"""The v2 data engine in front of an SPDK service."""

from collections.abc import AsyncIterator

import pytest

from instance_manager.adapters.spdk import SpdkConnection, Timeouts
from instance_manager.api.instance_v2 import InstanceV2
from instance_manager.platform.background import Background
from tests.support.spdk.process import SpdkProcess
from tests.support.v2_requests import WITHIN


@pytest.fixture
async def v2(spdk: SpdkProcess) -> AsyncIterator[InstanceV2]:
    connection = SpdkConnection(
        spdk.address, lambda: None, Background(), Timeouts(read=WITHIN, change=WITHIN)
    )
    yield InstanceV2(connection.instances)
    await connection.close()
