"""The import rules hold, and fail when they are broken."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINT_IMPORTS = Path(sys.executable).parent / "lint-imports"


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LINT_IMPORTS, "--config", folder / "pyproject.toml", "--no-cache"],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "instance_manager", tmp_path / "instance_manager", ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("core/ports.py", "import os"),
        ("core/lifecycle.py", "import instance_manager.app.events"),
        ("app/supervisor.py", "import grpc"),
        ("app/events.py", "import instance_manager.api.server"),
        ("adapters/logs/files.py", "import instance_manager.adapters.process"),
        ("adapters/mounts.py", "import instance_manager.pb"),
        ("api/server.py", "import instance_manager.adapters.logs"),
        ("api/server.py", "import instance_manager.platform.sqlite"),
        ("client/channel.py", "import instance_manager.daemon"),
        ("client/channel.py", "import instance_manager.app.events"),
        ("daemon/run.py", "import instance_manager.orphans"),
        ("app/supervisor.py", "import instance_manager.orphans.model"),
        ("orphans/reconciler.py", "import asyncio"),
        ("orphans/candidates.py", "import instance_manager.platform.clock"),
        ("orphans/agent.py", "import instance_manager.app.events"),
        ("orphans/owners/files.py", "import instance_manager.orphans.records"),
        ("platform/logging.py", "import instance_manager.app.events"),
        ("adapters/journal/journal.py", "import instance_manager.doctor"),
        ("stub/loop.py", "import grpc"),
    ],
)
def test_an_import_against_the_rules_is_found(copy: Path, module: str, line: str) -> None:
    path = copy / "instance_manager" / module
    path.write_text(f"{path.read_text()}\n{line}\n")
    result = lint(copy)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "BROKEN" in result.stdout


def test_the_import_rules_hold(copy: Path) -> None:
    result = lint(copy)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 broken" in result.stdout
