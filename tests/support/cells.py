"""Cgroups that daemons of tests have made; none outlives its test."""

import asyncio
import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

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
