"""What all tests in the machine share."""

import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.vm.unit import FILE, INSTALLED, SETTINGS, STATE, Unit


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker(pytest.mark.vm)


@pytest.fixture(scope="session")
def installed() -> Iterator[Path]:
    """The unit for a host, where systemd knows it."""
    shutil.copy(FILE, INSTALLED)
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    yield INSTALLED
    INSTALLED.unlink()
    subprocess.run(["systemctl", "daemon-reload"], check=True)


@pytest.fixture
async def unit(installed: Path) -> AsyncIterator[Unit]:
    """That unit, not started and without state."""
    unit = Unit(installed.name)
    async with unit.followed():
        yield unit
    SETTINGS.unlink(missing_ok=True)
    shutil.rmtree(STATE, ignore_errors=True)
