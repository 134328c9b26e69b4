"""A node whose daemon dies and comes back."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from instance_manager.client import Client
from tests.support.daemon import Daemon
from tests.support.patience import patience

STOP_TIMEOUT = 2
"""Seconds."""
_OPTIONS = ("--stop-timeout", str(STOP_TIMEOUT))
_LOOK = 0.01
_PATIENCE = patience(30.0)


class Node:
    """A node whose daemon dies and comes back."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.daemon = Daemon(folder, *_OPTIONS, *options)
        self._options = options

    @property
    def journal(self) -> Path:
        return self.daemon.folder / "state" / "journal.db"

    async def kill(self) -> None:
        """Kill the daemon without warning."""
        os.kill(self.daemon.pid, signal.SIGKILL)
        await self.daemon.ended()

    async def restart(self, *options: str) -> None:
        """Start the next daemon, with the options of the first one and others."""
        following = Daemon(self.daemon.folder, *_OPTIONS, *self._options, *options)
        following.marker = self.daemon.marker
        following.lines.extend(line for line in self.daemon.lines if line["event"] == "containment")
        self.daemon = following
        await following.start()

    def lose_journal(self) -> None:
        for path in self.journal.parent.glob("journal.db*"):
            path.unlink()

    def client(self) -> Client:
        return self.daemon.client()

    async def forgot_its_environment(self, pid: int) -> None:
        """Wait until a process that was started here no longer shows the environment that it was given."""
        environment = Path(f"/proc/{pid}/environ")
        await until(lambda: self.daemon.marker.encode() not in environment.read_bytes())


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something holds of the file system or of processes, of which nothing tells a change."""
    async with asyncio.timeout(_PATIENCE):
        while True:
            if condition():
                return
            await asyncio.sleep(_LOOK)


async def written(path: Path) -> list[int]:
    """Wait until a process has written a line of numbers to a file, and return them."""
    await until(lambda: path.exists() and path.read_text().endswith("\n"))
    return [int(word) for word in path.read_text().split()]  # noqa: ASYNC240 - a few bytes


@contextlib.asynccontextmanager
async def on_node(folder: Path, *options: str) -> AsyncIterator[Node]:
    """Run a daemon for the time of the block, and its successors; nothing outlives the block."""
    node = Node(folder, *options)
    try:
        await node.daemon.start()
        yield node
    finally:
        left = await node.daemon.clean_up()
    assert left == []
