"""Fixtures for tests of the use cases."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.support.world import World


@pytest.fixture
async def make_world() -> AsyncIterator[Callable[..., World]]:
    """Make worlds; afterwards nothing in them may have failed without a word."""
    unheard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
    with capture_logs() as logged:
        yield World
    assert unheard == []
    assert [line for line in logged if line["log_level"] == "error"] == []


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """A world whose processes end only when the test says so."""
    return make_world()
