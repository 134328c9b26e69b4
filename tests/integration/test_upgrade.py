"""The daemon is replaced by a later version and back while its processes work."""

import asyncio
import compileall
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

import instance_manager
from tests.chaos.storm import Guarded, environment, running
from tests.support.daemon import BIN, Daemon, stub
from tests.support.patience import patience

Sized = Callable[[int, int], int]

NO_CONTROL = 3.0
"""Seconds from the signal that ends one version to the first complete list of the other."""
LATER = "9.9.9"
LATER_SCHEMA = """
STEPS += ("ALTER TABLE processes ADD COLUMN novelty TEXT NOT NULL DEFAULT '';",)
"""
PROGRAM = f"""#!{sys.executable}
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from instance_manager.cli import main

main()
"""


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A later version in a place of its own, whose journal the present one cannot read."""
    folder = tmp_path_factory.mktemp("later")
    (present,) = instance_manager.__path__
    shutil.copytree(present, folder / "instance_manager")
    with (folder / "instance_manager/adapters/journal/schema.py").open("a") as schema:
        schema.write(LATER_SCHEMA)
    metadata = folder / f"instance_manager-{LATER}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: instance-manager\nVersion: {LATER}\n")
    program = folder / "instance-manager"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    # As an installation does it.
    assert compileall.compile_dir(folder, quiet=1)
    return program


class Installed:
    """The path at which the program of the day is installed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.install(BIN)

    def install(self, program: Path) -> None:
        """Put another version in the place of the present one."""
        beside = self.path.with_suffix(".next")
        beside.symlink_to(program)
        beside.replace(self.path)


class OnAHost:
    """A daemon that is ended with SIGTERM and started again by hand."""

    def __init__(self, folder: Path, installed: Installed) -> None:
        self._installed = installed
        self.daemon = self._following(folder)

    def _following(self, folder: Path) -> Daemon:
        daemon = Daemon(folder, "--on-stop", "leave")
        daemon.prefix = (str(self._installed.path),)
        return daemon

    @property
    def pid(self) -> int:
        return self.daemon.pid

    async def replace(self) -> None:
        """End the daemon and start what is installed now."""
        assert await self.daemon.stop() == 0
        following = self._following(self.daemon.folder)
        following.marker = self.daemon.marker
        self.daemon = following
        await following.start()


class UnderGuard:
    """A daemon that is killed and started again by its guard."""

    def __init__(self, folder: Path, installed: Installed) -> None:
        self._guarded = Guarded(folder)
        self._guarded.prefix = (str(installed.path), *self._guarded.prefix[1:])
        self.daemon: Daemon = self._guarded

    @property
    def pid(self) -> int:
        return self._guarded.daemon_pid()

    async def replace(self) -> None:
        """Kill the daemon; the guard starts what is installed now."""
        served = self._guarded.times_served()
        os.kill(self._guarded.daemon_pid(), signal.SIGKILL)
        await self._guarded.served_after(served)


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    return Installed(tmp_path / "installed")


@pytest.fixture(params=[OnAHost, UnderGuard])
async def node(
    request: pytest.FixtureRequest, tmp_path: Path, installed: Installed
) -> AsyncIterator[OnAHost | UnderGuard]:
    node: OnAHost | UnderGuard = request.param(tmp_path, installed)
    await node.daemon.start()
    try:
        yield node
    finally:
        left = await node.daemon.clean_up()
    assert left == []


async def state(daemon: Daemon) -> tuple[str, dict[str, bytes]]:
    """Return the version of the daemon and everything it tells about its processes."""
    async with daemon.client() as client:
        listed = {name: p.SerializeToString() for name, p in (await client.process_list()).items()}
        return (await client.version()).version, listed


async def as_before(daemon: Daemon, before: dict[str, bytes]) -> None:
    """Wait until everything is told as it was: a young process may have to say once more that it serves."""
    async with asyncio.timeout(patience(30)):
        while (listed := (await state(daemon))[1]) != before:
            assert listed.keys() == before.keys()


def instances(daemon: Daemon) -> set[tuple[int, str]]:
    """Return PID and UUID of each living instance."""
    shown = [(pid, environment(pid).get("INSTANCE_MANAGER_UUID", "")) for pid in daemon.descendants()]
    return {(pid, uuid) for pid, uuid in shown if uuid}


def logged(daemon: Daemon) -> dict[str, int]:
    """Return how much each process has logged."""
    return {path.name: path.stat().st_size for path in daemon.logs.iterdir()}


async def go_on_working(daemon: Daemon) -> None:
    """Wait until every process has logged something more."""
    before = logged(daemon)
    async with daemon.client() as client:
        while any(logged(daemon)[name] == size for name, size in before.items()):
            await client.health()


async def delete_all(daemon: Daemon) -> None:
    """Delete every process and wait until none is left."""
    async with daemon.client() as client, asyncio.timeout(patience(60)):
        for name in await client.process_list():
            await client.process_delete(name)
        while await client.process_list():
            pass


@pytest.mark.timeout(600)
async def test_a_later_version_takes_over_and_gives_back_and_no_process_notices(
    node: OnAHost | UnderGuard,
    installed: Installed,
    later: Path,
    sized: Sized,
    record_property: Callable[[str, object], None],
) -> None:
    count = sized(30, 500)
    names = [f"vol-{n}" for n in range(count)]
    async with node.daemon.client() as client:
        for begin in range(0, count, 20):
            batch = names[begin : begin + 20]
            for name in batch:
                await client.process_create(stub(name, "--log-rate", "2", ports=2))
            await running(client, batch)
    present, before = await state(node.daemon)
    before_pids = instances(node.daemon)
    journal = node.daemon.folder / "state" / "journal.db"
    took, cpu = [], []
    for program, version in ((later, LATER), (BIN, present)):
        installed.install(program)
        begun = time.monotonic()
        await node.replace()
        now, listed = await state(node.daemon)
        took.append(round(time.monotonic() - begun, 2))
        used = psutil.Process(node.pid).cpu_times()
        cpu.append(round(used.user + used.system, 2))
        assert (now, listed.keys()) == (version, before.keys())
        await as_before(node.daemon, before)
        await go_on_working(node.daemon)
    record_property("no_control_seconds", took)
    record_property("cpu_seconds", cpu)
    assert instances(node.daemon) == before_pids
    assert len(before_pids) == len(before) == count
    # The earlier version cannot read the journal of the later one: it went by the processes themselves.
    assert journal.with_name("journal.db.unusable").exists()
    await delete_all(node.daemon)
    # A loaded machine takes longer to start a Python; the figure itself is in docs/reliability.md.
    assert max(took) < patience(3 * NO_CONTROL)
