"""Runs the SPDK service of the tests as a process of its own."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from tests.support.patience import patience

ROOT = Path(__file__).resolve().parents[3]
DEADLINE = patience(30.0)


class SpdkProcess:
    """The service; it can be stopped and started again on the same address, and goes on with its state."""

    def __init__(self, folder: Path, address: str = "127.0.0.1:0", tls: Path | None = None) -> None:
        self._options = ["--state", str(folder / "spdk-state"), *(["--tls", str(tls)] if tls else [])]
        self.address = address
        self.process: subprocess.Popen[str]

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()

    def _start(self) -> None:
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.support.spdk.service",
                "--listen",
                self.address,
                *self._options,
            ],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.address = self._answer()["listening"]

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def _tell(self, order: dict[str, Any]) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{json.dumps(order)}\n")
        self.process.stdin.flush()
        return self._answer()

    def _kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
            self.process.wait(DEADLINE)
            for pipe in (self.process.stdin, self.process.stdout):
                assert pipe is not None
                pipe.close()

    async def start(self) -> None:
        """Start it again and wait until it listens."""
        await asyncio.to_thread(self._start)

    async def tell(self, **order: Any) -> Any:
        """Give an order and return the answer (see tests/spdk/service.py)."""
        async with asyncio.timeout(DEADLINE):
            return await asyncio.to_thread(self._tell, order)

    async def calls(self, *, watches: bool = False) -> list[str]:
        """Return the methods that were called since the last time."""
        told = await self.tell(calls=True)
        return [name for name, _ in told if watches or not name.endswith("Watch")]

    async def called(self, method: str) -> None:
        """Wait until a method has been called since the calls were asked for."""
        async with asyncio.timeout(DEADLINE):
            while method not in await self.calls(watches=True):
                pass

    async def request(self, method: str) -> dict[str, Any]:
        """Return the latest request of a method since the calls were asked for."""
        told: list[tuple[str, dict[str, Any]]] = await self.tell(calls=True)
        return next(request for name, request in reversed(told) if name == method)

    async def renew(self) -> None:
        """Make it as good as new for the next test."""
        if self.process.returncode is not None:
            await self.start()
        self.thaw()
        await self.tell(reset=True)

    def freeze(self) -> None:
        """Let it do nothing at all until `thaw`; the kernel still takes connections for it."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.process.pid, signal.SIGCONT)

    async def kill(self) -> None:
        """End it at once; nothing if it has ended."""
        await asyncio.to_thread(self._kill)
