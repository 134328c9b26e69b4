"""What the machine gets of this checkout: the package, out of its wheel, and the tests."""

import configparser
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from tests.support.vm.disk import ROOT, VENV
from tests.support.vm.machine import Machine, MachineError

FOLDER = "/opt/checkout"
"""Where the machine has the tests."""
_PARTS = ("pyproject.toml", "deploy", "tests")
_SITE = PurePosixPath(VENV, "lib", "python3.11", "site-packages")
_ARCHIVE = "/tmp/checkout.tar.gz"


def install(machine: Machine) -> None:
    """Put the package and the tests into the machine, uncommitted changes included.

    Raises:
        MachineError: The wheel cannot be built, or the machine does not take it.
    """
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for path, data, mode in (*_installed(_wheel()), *_tracked()):
            entry = tarfile.TarInfo(str(path))
            entry.size, entry.mode = len(data), mode
            tar.addfile(entry, io.BytesIO(data))
    machine.put(archive.getvalue(), _ARCHIVE)
    said: list[str] = []
    unpack = f"rm -rf {FOLDER} {_SITE}/instance_manager* && tar --extract --directory / --file {_ARCHIVE}"
    if machine.run(unpack, seconds=60, output=said.append) != 0:
        raise MachineError(f"cannot unpack the package in the machine: {''.join(said)}")


def _wheel() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise MachineError(f"cannot build the wheel:\n{done.stdout}{done.stderr}")
        (wheel,) = Path(folder).glob("*.whl")
        return wheel.read_bytes()


def _installed(wheel: bytes) -> Iterator[tuple[PurePosixPath, bytes, int]]:
    """Return the files that pip would install, with their modes; in the machine pip takes half a minute."""
    with zipfile.ZipFile(io.BytesIO(wheel)) as content:
        for name in content.namelist():
            yield _SITE / name, content.read(name), 0o644
        (metadata,) = [name for name in content.namelist() if name.endswith(".dist-info/entry_points.txt")]
        entry_points = configparser.ConfigParser()
        entry_points.read_string(content.read(metadata).decode())
    for name, target in entry_points["console_scripts"].items():
        module, _, function = target.partition(":")
        program = (
            f"#!{VENV}/bin/python\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n"
        )
        yield PurePosixPath(VENV, "bin", name), program.encode(), 0o755


def _tracked() -> Iterator[tuple[PurePosixPath, bytes, int]]:
    """Return the files of the tests that git does not ignore."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *_PARTS]
    found = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    for name in filter(None, found.split("\0")):
        path = ROOT / name
        if path.is_file():
            yield PurePosixPath(FOLDER, name), path.read_bytes(), path.stat().st_mode & 0o777
