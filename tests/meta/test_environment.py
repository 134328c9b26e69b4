"""scripts/environment on a machine that lacks something."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a checkout with scripts and locks, and without an environment."""
    for folder in ("scripts", "requirements"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def environment(checkout: Path, python: str, *folder: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [checkout / "scripts" / "environment", "runtime", *folder],
        env={"PATH": "/usr/bin:/bin", "PYTHON": python},
        capture_output=True,
        text=True,
        check=False,
    )


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_python_without_venv_is_refused_in_one_line_and_leaves_nothing(checkout: Path) -> None:
    # Debian's python3 without the package python3-venv.
    python = script(
        checkout / "python", f'case "$*" in *ensurepip*) exit 1 ;; esac; exec {sys.executable} "$@"'
    )
    refused = environment(checkout, str(python))
    assert refused.returncode == 1
    assert refused.stderr == (
        f"scripts/environment: cannot make .venv: {python} has no module venv or ensurepip; "
        "on Debian: apt-get install python3-venv\n"
    )
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize("broken", ["half made", "interpreter gone"])
def test_an_environment_that_is_not_whole_is_made_again(checkout: Path, broken: str) -> None:
    binaries = checkout / ".venv" / "bin"
    binaries.mkdir(parents=True)
    if broken == "half made":
        (binaries / "python").symlink_to("/usr/bin/false")
    else:
        (binaries / "python").symlink_to(checkout / "gone")
    made = checkout / "made"
    # Instead of an environment, it makes a python that says what it is asked for.
    python = script(
        checkout / "python",
        f"""if [ "$2" = venv ]; then
  echo "$@" >{made}; mkdir -p .venv/bin; rm -f .venv/bin/python; ln -s "$0" .venv/bin/python
fi""",
    )
    finished = environment(checkout, str(python))
    assert finished.returncode == 0, finished.stderr
    assert made.read_text() == "-m venv --clear .venv\n"
    assert (checkout / ".venv" / ".installed-runtime").exists()
    made.unlink()
    assert environment(checkout, str(python)).returncode == 0
    assert not made.exists(), "it was whole"


def test_another_interpreter_has_a_folder_of_its_own(checkout: Path) -> None:
    python = script(
        checkout / "python", 'if [ "$2" = venv ]; then mkdir -p "$4/bin"; ln -s "$0" "$4/bin/python"; fi'
    )
    finished = environment(checkout, str(python), ".venv-3.13")
    assert finished.returncode == 0, finished.stderr
    assert (checkout / ".venv-3.13" / ".installed-runtime").exists()
    assert not (checkout / ".venv").exists()
