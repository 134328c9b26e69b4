"""Fixtures: cells below a cgroup of the test's own."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from instance_manager.adapters.cgroup import CgroupContainment
from tests.support.cell_program import opened
from tests.support.cells import own_root


@pytest.fixture
def root() -> Iterator[Path]:
    """A cgroup of the test's own; nothing may be left in it."""
    with own_root() as made:
        yield made


@pytest.fixture
async def containment(root: Path) -> AsyncIterator[CgroupContainment]:
    """Cells below it."""
    made = opened(root)
    yield made
    made.close()
