"""Where processes cannot be handled through pidfds, the daemon says so and does not start."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.daemon import BIN, port_span
from tests.support.patience import patience

WITHOUT = (sys.executable, "-m", "tests.support.without_pidfds", str(BIN))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*WITHOUT, *arguments], check=False, capture_output=True, text=True, timeout=patience(60)
    )


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    ports = "{}-{}".format(*port_span())
    return ["--state-dir", str(tmp_path / "s"), "--logs-dir", str(tmp_path / "l"), "--port-range", ports]


def test_the_daemon_refuses_to_start_with_one_line_that_names_the_cause(
    options: list[str], tmp_path: Path
) -> None:
    listen = ("--listen", f"unix://{tmp_path}/im.sock", "--metrics-listen", "")
    done = run("daemon", *listen, *options)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "cannot supervise processes: pidfd_open is refused (Operation not permitted)" in line
    assert "seccomp" in line
    assert not (tmp_path / "s").exists()


def test_doctor_tells(options: list[str], tmp_path: Path) -> None:
    done = run("--url", f"unix://{tmp_path}/none.sock", "doctor", *options, "-o", "json")
    (found,) = [finding for finding in json.loads(done.stdout) if finding["check"] == "kernel"]
    assert found["severity"] == "error"
    assert "pidfd_open is refused" in found["message"]
    assert "seccomp" in found["hint"]
