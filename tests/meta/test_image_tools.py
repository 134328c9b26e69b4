"""The list of what the image needs of Debian, and the check of a build, with stand-ins for all programs."""

import os
import re
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/image-tools"
ROWS = re.findall(r"^(plain|tools) (\S+) (\S+) (.*)$", SCRIPT.read_text(), re.MULTILINE)
USED = ("grep", "cat", "test")
"""Programs that the script itself needs, or that only ask for a file."""


def run(action: str, variant: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the script; it finds the programs in the folder, and those that it needs itself."""
    for name in USED:
        if not (folder / name).exists():
            (folder / name).symlink_to(f"/bin/{name}" if name != "test" else "/bin/true")
    return subprocess.run(
        ["/bin/sh", SCRIPT, action, variant],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PATH": str(folder)},
    )


def put(folder: Path, name: str, script: str = "exit 0") -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with a stand-in of every program in the list."""
    for _, _, name, _ in ROWS:
        if name not in USED:
            put(tmp_path, name)
    return tmp_path


def test_all_that_runs_passes_and_nothing_is_missing(programs: Path) -> None:
    for action in ("check", "missing"):
        done = run(action, "tools", programs)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("row", [row for row in ROWS if row[2] not in USED], ids=lambda row: row[2])
def test_a_program_that_does_not_run_fails_the_check(programs: Path, row: tuple[str, ...]) -> None:
    variant, package, name, _ = row
    put(programs, name, "echo no library >&2; exit 127")
    done = run("check", variant, programs)
    assert done.returncode == 1
    assert f"{name} ({package}) does not run here: no library" in done.stderr
    (programs / name).unlink()
    assert package in run("missing", variant, programs).stdout.split()
    assert run("check", variant, programs).returncode == 1


def test_what_a_build_lacks_privileges_for_has_to_be_loaded_at_least(programs: Path) -> None:
    put(programs, "mount.cifs", "exit 2")
    assert run("check", "tools", programs).returncode == 0
    put(programs, "mount.nfs", "exit 2")
    assert run("check", "tools", programs).returncode == 1


def test_each_package_is_told_once_and_the_plain_image_has_fewer(programs: Path) -> None:
    plain, tools = (run("packages", variant, programs).stdout.split() for variant in ("plain", "tools"))
    assert len(tools) == len(set(tools))
    assert set(plain) < set(tools)
    assert "netcat-openbsd" in plain


@pytest.mark.parametrize("arguments", [(), ("check",), ("check", "all"), ("install", "plain")])
def test_wrong_usage_is_told(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(["/bin/sh", SCRIPT, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: ")
