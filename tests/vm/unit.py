"""The unit of deploy/systemd."""

import asyncio
import contextlib
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil

from instance_manager.client import Client
from instance_manager.pb.imrpc import imrpc_pb2 as pb
from tests.support.daemon import Watch, log_line, sleeper
from tests.support.patience import patience

NAME = "instance-manager.service"
FILE = Path("deploy", "systemd", NAME)
INSTALLED = Path("/etc/systemd/system", NAME)
SETTINGS = Path("/etc/default/instance-manager")
STATE = Path("/run/instance-manager")
GROUP = Path("/sys/fs/cgroup/system.slice", NAME)


class Unit:
    """The unit, and what is logged about it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._journal: asyncio.StreamReader

    async def start(self) -> None:
        """Start it and wait until it serves."""
        await systemctl("start", self.name)
        await self.serves()

    async def serves(self) -> None:
        """Wait until the next daemon serves."""
        await self.logs("serving")

    async def logs(self, event: str) -> dict[str, Any]:
        """Return the next line about an event."""
        seen = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience(20)):
                async for raw in self._journal:
                    seen.append(log_line(raw))
                    if seen[-1]["event"] == event:
                        return seen[-1]
        raise AssertionError(f"not logged: {event}, but {seen}")

    async def show(self, name: str) -> str:
        """Return one of its properties."""
        return await systemctl("show", "--property", name, "--value", self.name)

    async def guard(self) -> psutil.Process:
        """Return its main process."""
        return psutil.Process(int(await self.show("MainPID")))

    async def daemon(self) -> psutil.Process:
        """Return the daemon of its guard."""
        (daemon,) = [child for child in (await self.guard()).children() if "daemon" in child.cmdline()]
        return daemon

    def client(self) -> Client:
        return Client("tcp://localhost:8500")

    async def create(self, name: str) -> pb.ProcessResponse:
        """Create an instance and wait until it runs."""
        async with self.client() as client, Watch(client) as watch:
            await client.process_create(sleeper(name))
            return await watch.state(name, "running")

    async def get(self, name: str) -> pb.ProcessResponse:
        async with self.client() as client:
            return await client.process_get(name)

    async def delete(self, name: str) -> None:
        """Delete an instance and wait until it is gone."""
        async with self.client() as client, Watch(client) as watch:
            await client.process_delete(name)
            await watch.state(name, "deleted")

    async def full(self, group: Path) -> None:
        """Wait until a control group has refused a process: no event of another file tells."""
        async with asyncio.timeout(patience(20)):
            while "max 0" in (group / "pids.events").read_text():  # noqa: ASYNC110 - as it says
                await asyncio.sleep(0.05)

    @contextlib.asynccontextmanager
    async def followed(self) -> AsyncIterator[None]:
        """Follow what it logs for the time of the block. None of its processes may outlive that."""
        follow = (
            "journalctl",
            "--follow",
            "--unit",
            NAME,
            "--output",
            "cat",
            "--since",
            f"@{time.time():.6f}",
        )
        journal = await asyncio.create_subprocess_exec(*follow, stdout=subprocess.PIPE)
        assert journal.stdout is not None
        self._journal = journal.stdout
        try:
            yield
        finally:
            await systemctl("stop", self.name)
            left = [psutil.Process(pid) for pid in members()]
            for process in left:
                process.kill()
            psutil.wait_procs(left, timeout=patience(5))
            journal.kill()
            await journal.wait()
        assert left == []


async def systemctl(*arguments: str) -> str:
    """Run systemctl and return what it prints."""
    return await run("systemctl", *arguments)


async def run(*command: str) -> str:
    """Run a program that has to succeed and return what it prints."""
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    async with asyncio.timeout(patience(20)):
        told, _ = await process.communicate()
    assert process.returncode == 0, told.decode()
    return told.decode().strip()


def members(group: Path = GROUP) -> set[int]:
    """Return the processes of a control group and those below it; none if it does not exist."""
    return {int(pid) for path in group.rglob("cgroup.procs") for pid in path.read_text().split()}
