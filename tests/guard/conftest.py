"""What several tests of the guard need."""

import shutil
import subprocess
from collections.abc import Sequence

import pytest


@pytest.fixture
def isolated() -> Sequence[str]:
    """What to put before a program for it to be the first process of a PID namespace."""
    command = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc")
    allowed = shutil.which("unshare") and subprocess.run([*command, "true"], check=False).returncode == 0
    return command if allowed else pytest.skip("needs unshare(1) and the right to use it")
