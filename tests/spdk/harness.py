"""Runs the SPDK service of the tests as a process of its own."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 30.0


class SpdkProcess:
    """The service, which can be stopped and started again on the same address with the same state."""

    def __init__(self, folder: Path) -> None:
        self._state = folder / "spdk-state"
        self.address = "127.0.0.1:0"
        self.process: asyncio.subprocess.Process

    async def start(self) -> None:
        """Start it and wait until it listens."""
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.spdk.service"),
            *("--listen", self.address, "--state", str(self._state)),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        self.address = (await self._answer())["listening"]

    async def _answer(self) -> Any:
        assert self.process.stdout is not None
        async with asyncio.timeout(DEADLINE):
            return json.loads(await self.process.stdout.readline())

    async def tell(self, **order: Any) -> Any:
        """Give an order and return the answer (see tests/spdk/service.py)."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{json.dumps(order)}\n".encode())
        return await self._answer()

    async def calls(self, *, watches: bool = False) -> list[str]:
        """Return the methods that were called since the last time."""
        told = await self.tell(calls=True)
        return [name for name, _ in told if watches or not name.endswith("Watch")]

    async def request(self, method: str) -> dict[str, Any]:
        """Return the latest request of a method since the calls were asked for."""
        return next(request for name, request in reversed(await self.tell(calls=True)) if name == method)

    def freeze(self) -> None:
        """Let it answer nothing, not even the kernel's peers, until `thaw`."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    async def kill(self) -> None:
        """End it at once; nothing if it has ended."""
        if self.process.returncode is None:
            self.process.kill()
            async with asyncio.timeout(DEADLINE):
                await self.process.wait()


@contextlib.asynccontextmanager
async def spdk_process(folder: Path) -> AsyncIterator[SpdkProcess]:
    """Run one for the time of the block."""
    spdk = SpdkProcess(folder)
    await spdk.start()
    try:
        yield spdk
    finally:
        await spdk.kill()
