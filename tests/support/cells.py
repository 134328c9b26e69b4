"""Cgroups that daemons of tests have made; none outlives its test."""

import asyncio
import contextlib
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from instance_manager.adapters.cgroup import CgroupContainment, UnusableError, usable_root
from instance_manager.adapters.process import Reaper, SessionContainment
from tests.support.patience import patience


async def remove_cells(lines: Iterable[Mapping[str, Any]]) -> list[Path]:
    """Remove the cgroups that daemons tell of in their logs; return those in which processes live.

    Args:
        lines: of their logs.
    """
    folders = {
        Path(line["folder"]) for line in lines if line.get("event") == "containment" and line["folder"]
    }
    try:
        async with asyncio.timeout(patience(5)):
            while not all(map(_removed, folders)):  # noqa: ASYNC110 - what was killed just now is still in it
                await asyncio.sleep(0.005)
    except TimeoutError:
        return [folder for folder in folders if folder.exists()]
    return []


def _removed(folder: Path) -> bool:
    for path, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):
            Path(path).rmdir()
    return not folder.exists()


def hierarchy() -> Path:
    """Return the cgroup of this process; the test is skipped where no cells can be made in it."""
    try:
        return usable_root()
    except UnusableError as error:
        pytest.skip(f"needs cgroups of version 2: {error}")


@contextlib.contextmanager
def own_root(below: Path | None = None) -> Iterator[Path]:
    """Make a cgroup for a test; fails if a process or a cgroup of the test is left in it.

    Args:
        below: the cgroup in which it is made; None for that of this process.
    """
    root = (below or hierarchy()) / f"instance-manager-test-{uuid.uuid4().hex}"
    root.mkdir()
    try:
        yield root
    finally:
        left = [str(path.relative_to(root)) for path in root.rglob("*") if path.is_dir()]
        (root / "cgroup.kill").write_text("1")
        deadline = time.monotonic() + patience(5)
        while not _removed(root) and time.monotonic() < deadline:
            time.sleep(0.005)
    assert left == [], "cgroups outlived the test"


def by_cgroup(root: Path, owner: str = "the test") -> Callable[[Reaper], CgroupContainment]:
    """Return what makes a containment by cgroups below a root."""

    def make(reaper: Reaper) -> CgroupContainment:
        return CgroupContainment(root, owner, SessionContainment(reaper, owner, None))

    return make
