"""Runs the engine of the tests as a process of its own."""

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


class EngineProcess:
    """The program; see `tests/support/engine/program.py` for the orders."""

    def __init__(self, *options: str, volume: str = "vol1") -> None:
        self._options = ("--volume", volume, *options)
        self.volume = volume
        self.name = f"{volume}-e-0"
        self.address: str
        """Of the controller."""
        self.replicas: dict[str, str]
        """Addresses of the replicas, tcp://HOST:PORT, by name."""
        self.process: subprocess.Popen[str]

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.engine.program", *self._options],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._note(self._answer())
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _note(self, told: Any) -> None:
        self.address, self.replicas = told["controller"], told["replicas"]

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def _tell(self, order: dict[str, Any]) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{json.dumps(order)}\n")
        self.process.stdin.flush()
        return self._answer()

    def kill(self) -> None:
        """End it at once; nothing if it has ended."""
        if self.process.returncode is None:
            self.process.kill()
            self.process.wait(DEADLINE)
            for pipe in (self.process.stdin, self.process.stdout):
                assert pipe is not None
                pipe.close()

    async def tell(self, **order: Any) -> Any:
        """Give an order and return the answer."""
        async with asyncio.timeout(DEADLINE):
            return await asyncio.to_thread(self._tell, order)

    async def add(self, name: str) -> str:
        """Let a replica listen that the volume does not have, and return its address."""
        address: str = await self.tell(replica=name)
        self.replicas[name] = address
        return address

    async def calls(self) -> list[tuple[str, str, dict[str, Any], dict[str, str]]]:
        """Return place, method, request and metadata of each call since the last time."""
        return [tuple(each) for each in await self.tell(calls=True)]

    async def called(self, method: str) -> None:
        """Wait until a method has been called since the calls were asked for."""
        async with asyncio.timeout(DEADLINE):
            while method not in {each[1] for each in await self.calls()}:
                pass

    async def renew(self) -> None:
        """Make it as good as new for the next test."""
        os.kill(self.process.pid, signal.SIGCONT)
        self._note(await self.tell(reset=True))

    def freeze(self) -> None:
        """Let it do nothing at all; the kernel still takes connections for it."""
        os.kill(self.process.pid, signal.SIGSTOP)
