"""Which tests have failed, in a file: pytest does not tell when it breaks down itself.

A plugin that scripts/pytest loads.
"""

import os
from pathlib import Path

import pytest

VARIABLE = "INSTANCE_MANAGER_TEST_FAILURES"
"""Environment variable with the path of the file."""


def pytest_configure(config: pytest.Config) -> None:
    # The workers of pytest-xdist report to the one that has started them; a pytest in a test is not ours.
    path = None if hasattr(config, "workerinput") else os.environ.pop(VARIABLE, None)
    if path:
        config.pluginmanager.register(FailureFile(Path(path)))


class FailureFile:
    """Adds each failure to a file as soon as it is known.

    Args:
        path: The file. Its last line is `finished` once pytest has told everything itself.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._broken = False
        path.write_text("")

    def _add(self, line: str) -> None:
        with self._path.open("a") as file:
            file.write(line + "\n")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            text = str(report.longrepr).rstrip().rpartition("\n")[2]
            self._add(f"FAILED {report.nodeid} ({report.when}): {text}")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._add(f"FAILED {report.nodeid} (collecting)")

    def pytest_internalerror(self) -> None:
        self._broken = True

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        if not self._broken:
            self._add("finished")
