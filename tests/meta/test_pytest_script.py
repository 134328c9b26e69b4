"""scripts/pytest, whatever becomes of pytest."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.patience import patience

ROOT = Path(__file__).resolve().parents[2]
TESTS = """
import os, signal

def test_a_fails():
    assert 1 == 2

def test_b_passes():
    pass

def test_c_is_killed_if_told(request):
    if fifo := request.config.getoption("--hang"):
        open(fifo, "w").close()
        signal.pause()
    if request.config.getoption("--kill"):
        os.kill(os.getpid(), signal.SIGKILL)
"""
CONFTEST = """
import pytest

def pytest_addoption(parser):
    parser.addoption("--kill", action="store_true")
    parser.addoption("--break-in")
    parser.addoption("--hang")

def pytest_runtest_protocol(item):
    if item.config.getoption("--break-in") == "worker" and item.name.startswith("test_b"):
        raise ZeroDivisionError("the worker breaks down")

@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report):
    if BROKEN and report.nodeid.endswith("test_b_passes"):
        raise ZeroDivisionError("the controller breaks down")

def pytest_configure(config):
    global BROKEN
    BROKEN = config.getoption("--break-in") == "controller" and not hasattr(config, "workerinput")
"""


def _environment() -> dict[str, str]:
    """Return the environment without what changes how pytest runs or what it prints, such as CI."""
    chosen = ("CI", "BUILD_NUMBER", "COLUMNS", "PYTEST_", "PY_COLORS", "NO_COLOR", "FORCE_COLOR")
    return {name: value for name, value in os.environ.items() if not name.startswith(chosen)}


def run(folder: Path, *options: str, workers: int) -> tuple[int, str]:
    """Run scripts/pytest on tests that fail; return its status and what it has told."""
    started = start(folder, *options, workers=workers)
    told, _ = started.communicate(timeout=patience(50))
    return started.returncode, told


def start(folder: Path, *options: str, workers: int) -> subprocess.Popen[str]:
    """Start scripts/pytest on tests that fail."""
    (folder / "test_it.py").write_text(TESTS)
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "pytest.ini").write_text("[pytest]")
    return subprocess.Popen(
        [ROOT / "scripts" / "pytest", *options, f"--rootdir={folder}", "-c", folder / "pytest.ini", folder],
        env={**_environment(), "PYTEST_WORKERS": str(workers), "VENV": os.path.relpath(sys.prefix, ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_failures_are_told_by_pytest_itself(tmp_path: Path, workers: int) -> None:
    status, told = run(tmp_path, workers=workers)
    assert status == 1
    assert told.count("\nFAILED ") == 1, told
    assert "test_it.py::test_a_fails" in told.partition("short test summary")[2], told
    assert "broken down" not in told


@pytest.mark.parametrize(("where", "workers"), [("worker", 0), ("worker", 1), ("controller", 1)])
def test_failures_are_told_when_pytest_breaks_down(tmp_path: Path, where: str, workers: int) -> None:
    status, told = run(tmp_path, "--break-in", where, workers=workers)
    assert "INTERNALERROR" in told
    assert status != 0
    _, _, summary = told.partition("pytest has broken down")
    assert "FAILED test_it.py::test_a_fails (call): " in summary, told


def test_failures_are_told_when_pytest_is_killed(tmp_path: Path) -> None:
    status, told = run(tmp_path, "--kill", workers=0)
    assert status == 137
    assert "FAILED test_it.py::test_a_fails (call): " in told.partition("pytest has broken down")[2], told


def test_a_worker_that_is_killed_is_a_failure(tmp_path: Path) -> None:
    status, told = run(tmp_path, "--kill", workers=1)
    assert status == 1
    assert "test_c_is_killed_if_told" in told.partition("short test summary")[2]
    assert "test_it.py::test_a_fails" in told.partition("short test summary")[2]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_run_that_is_ended_tells_what_has_failed_until_then(
    tmp_path: Path, workers: int, number: signal.Signals
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    started = start(tmp_path, "--hang", str(fifo), workers=workers)
    fifo.read_text()
    started.send_signal(number)
    told, _ = started.communicate(timeout=patience(50))
    assert started.returncode == 2
    assert "test_it.py::test_a_fails" in told.partition("short test summary")[2], told
