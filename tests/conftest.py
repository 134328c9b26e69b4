"""Fixtures and rules for every test."""

import os
import signal
from collections.abc import AsyncIterator, Callable, Generator
from pathlib import Path

import pytest
from hypothesis import settings

from instance_manager.platform.posix_spawn import can_spawn_into_cgroup
from tests.support.daemon import Daemon, running_daemon
from tests.support.engine.fixtures import engine, engine_process, proxy
from tests.support.patience import FACTOR, patience
from tests.support.spdk.fixtures import spdk, spdk_elsewhere, spdk_elsewhere_process, spdk_process, v2_proxy

__all__ = [
    "engine",
    "engine_process",
    "proxy",
    "spdk",
    "spdk_elsewhere",
    "spdk_elsewhere_process",
    "spdk_process",
    "v2_proxy",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run those of half a minute, too, as .ci/run")
    parser.addoption("--full", action="store_true", help="run the full-size checks too (an hour or so)")
    parser.addoption(
        "--update-golden", action="store_true", help="accept what is told now as what is expected"
    )


settings.register_profile("default", max_examples=60, stateful_step_count=40, deadline=None, derandomize=True)
settings.register_profile("full", max_examples=2000, stateful_step_count=100, deadline=None)

_PURE = frozenset({"core", "app", "orphans"})
"""Folders whose tests take long only because Hypothesis tries many examples."""
_FULL_TIMEOUT = 1800
"""Seconds that one of them may take with --full."""
_IN_MACHINE = "INSTANCE_MANAGER_TEST_MACHINE"
"""Set in the machine that `scripts/vm test` runs tests in."""
_ELSEWHERE = {
    "full": "full-size check: run with --full",
    "slow": "takes half a minute: run with --slow, as .ci/run does",
    "vm": "needs a machine of its own: run with scripts/vm test",
    "into_cgroup": "needs a C library that spawns into cgroups (glibc 2.39): run with .ci/second-python",
}
"""Markers of tests that are run in another way, with the reason why they are skipped."""
_OF_V1 = "control group (version 1)"
"""What the reason of a skip names that nothing can install: a kernel may have version 2 only."""


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--hypothesis-profile", None) is None:
        settings.load_profile("full" if config.getoption("--full") else "default")
    # What a shell starts in the background ignores Ctrl-C, and so would every program that a test starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str:
    return f"patience: {FACTOR:g} times what an idle machine needs"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        marker = item.get_closest_marker("timeout")
        seconds = marker.args[0] if marker else float(config.getini("timeout"))
        item.add_marker(pytest.mark.timeout(patience(seconds)), append=False)
        if reason := _run_elsewhere(item):
            item.add_marker(pytest.mark.skip(reason=reason))


def _run_elsewhere(item: pytest.Item) -> str | None:
    """Return the reason if a test is not for this run."""
    option = item.config.getoption
    here = {
        "full": option("--full"),
        "slow": option("--slow") or option("--full"),
        "vm": _IN_MACHINE in os.environ,
        "into_cgroup": can_spawn_into_cgroup(),
    }
    reasons = [
        reason
        for marker, reason in _ELSEWHERE.items()
        if item.get_closest_marker(marker) and not here[marker]
    ]
    return reasons[0] if reasons else None


def pytest_itemcollected(item: pytest.Item) -> None:
    if item.config.getoption("--full") and item.path.parent.name in _PURE:
        item.add_marker(pytest.mark.timeout(_FULL_TIMEOUT))


@pytest.fixture
def sized(full: bool) -> Callable[[int, int], int]:
    """Choose a number: the first for every day, the second for the full-size check."""
    return lambda everyday, whole: whole if full else everyday


@pytest.fixture
def full(request: pytest.FixtureRequest) -> bool:
    """Whether the full-size checks are wanted."""
    return bool(request.config.getoption("--full"))


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    """A daemon of the test's own; nothing may outlive it."""
    async with running_daemon(tmp_path, "--stop-timeout", "2", "--shutdown-grace", "4") as running:
        yield running


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where everything is installed (INSTANCE_MANAGER_TEST_NO_SKIP), a skip is a failure."""
    report = yield
    strict = os.environ.get("INSTANCE_MANAGER_TEST_NO_SKIP") and not _run_elsewhere(item)
    if strict and report.skipped and not hasattr(report, "wasxfail") and _OF_V1 not in str(report.longrepr):
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may be skipped: {report.longrepr}"
    return report
