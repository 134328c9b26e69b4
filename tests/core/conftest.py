"""How many examples Hypothesis tries: few and always the same ones, or many new ones with --full."""

import pytest
from hypothesis import settings

settings.register_profile("default", max_examples=60, stateful_step_count=40, deadline=None, derandomize=True)
settings.register_profile("full", max_examples=2000, stateful_step_count=100, deadline=None)

FULL_TIMEOUT = 1800
"""Seconds that one test may take with --full."""


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--hypothesis-profile", None) is None:
        settings.load_profile("full" if config.getoption("--full") else "default")


def pytest_itemcollected(item: pytest.Item) -> None:
    if item.config.getoption("--full"):
        item.add_marker(pytest.mark.timeout(FULL_TIMEOUT))
