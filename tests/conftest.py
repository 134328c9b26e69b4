"""Fixtures and rules for every test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.harness import Daemon, running_daemon


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="run the full-size checks too (an hour or so)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--full"):
        return
    skip = pytest.mark.skip(reason="full-size check: run with --full")
    for item in items:
        if "full" in item.keywords:
            item.add_marker(skip)


@pytest.fixture
def full(request: pytest.FixtureRequest) -> bool:
    """Whether the full-size checks are wanted."""
    return bool(request.config.getoption("--full"))


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    """A daemon of the test's own; nothing may outlive it."""
    async with running_daemon(tmp_path, "--stop-timeout", "2") as running:
        yield running
