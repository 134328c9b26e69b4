"""A daemon thaws the file systems of volumes when it starts and no engine lives."""

import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from instance_manager.client import Client
from tests.support.daemon import BIN, Watch, port_span, sleeper
from tests.support.guard import Guard, guarding

MOUNTS = ("unshare", "--user", "--map-root-user", "--mount")
MOUNT = 'mount -t tmpfs /dev/longhorn/vol "$1" && shift && exec "$@"'
FREEZER = """#!/bin/sh
echo "$@" >> {calls}
exec sleep {seconds}
"""


@pytest.fixture(autouse=True)
def namespaces() -> None:
    """Skip where a test may have no mounts of its own."""
    if not shutil.which("unshare") or subprocess.run([*MOUNTS, "true"], check=False).returncode:
        pytest.skip("needs unshare(1) and the right to use it")


@asynccontextmanager
async def daemon(folder: Path, seconds: int) -> AsyncIterator[Guard]:
    """Guard a daemon that sees a volume that is mounted; the program to thaw it takes some seconds."""
    (folder / "volume").mkdir()
    (folder / "fsfreeze").write_text(FREEZER.format(calls=folder / "calls", seconds=seconds))
    (folder / "fsfreeze").chmod(0o755)
    first, last = port_span()
    async with guarding(
        folder / "state",
        *("daemon", "--listen", f"unix://{folder}/im.sock", "--logs-dir", f"{folder}/logs"),
        *("--port-range", f"{first}-{last}"),
        program=(*MOUNTS, "sh", "-c", MOUNT, "sh", str(folder / "volume"), str(BIN)),
        environment={"PATH": f"{folder}:{os.environ['PATH']}"},
    ) as guard:
        await guard.serving()
        yield guard
        assert await guard.stop() == 0


async def test_it_thaws_before_the_first_instance_and_never_beside_one(tmp_path: Path) -> None:
    async with daemon(tmp_path, seconds=0) as guard:
        told = "thawed the file system of a volume: its engine was killed in a snapshot"
        assert (await guard.seen(lambda: lines(guard, told)))[0]["mount"] == f"{tmp_path}/volume"
        async with Client(f"unix://{tmp_path}/im.sock") as client, Watch(client) as watch:
            await client.process_create(sleeper("e"))
            await watch.state("e", "running")
        os.kill(await guard.started(), signal.SIGKILL)
        await guard.serving(2)
        async with Client(f"unix://{tmp_path}/im.sock") as client:
            assert list(await client.process_list()) == ["e"]
        assert (tmp_path / "calls").read_text() == f"--unfreeze {tmp_path}/volume\n"


async def test_one_that_hangs_is_not_in_the_way_of_the_start(tmp_path: Path) -> None:
    async with daemon(tmp_path, seconds=1000) as guard:
        await guard.seen(lambda: lines(guard, "cannot thaw a file system: no answer"))
        told = [line["event"] for line in guard.lines]
        assert told.index("serving") < told.index("cannot thaw a file system: no answer")


def lines(guard: Guard, event: str) -> list[dict[str, Any]] | None:
    return [line for line in guard.lines if line["event"] == event] or None
