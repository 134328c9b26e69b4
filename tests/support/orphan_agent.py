"""The agent that looks for orphans as a separate process."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from tests.support.cli import Result, run, started
from tests.support.daemon import foreign, log_line
from tests.support.patience import patience

WAIT = "0.2"
"""Seconds from a suspicion to its judgement: short, so that whatever is judged wrongly is seen."""


class Agent:
    """A running agent and what it has logged."""

    def __init__(self, folder: Path, targets: Mapping[str, str], process: asyncio.subprocess.Process) -> None:
        self.folder = folder
        self.targets = targets
        self.lines: list[dict[str, Any]] = []
        self._process = process
        self._arrived = asyncio.Condition()

    @property
    def records(self) -> Path:
        return self.folder / "orphans.db"

    async def read(self) -> None:
        """Collect what it logs."""
        assert self._process.stderr is not None
        async for raw in self._process.stderr:
            line = log_line(raw)
            async with self._arrived:
                self.lines.append(line)
                self._arrived.notify_all()

    async def logged(self, event: str, within: float = 40, **fields: object) -> dict[str, Any]:
        """Wait for a line with an event and these fields."""

        def look() -> dict[str, Any] | None:
            wanted = {"event": event, **fields}
            return next((line for line in self.lines if wanted.items() <= line.items()), None)

        try:
            async with asyncio.timeout(patience(within)), self._arrived:
                while (found := look()) is None:
                    await self._arrived.wait()
        except TimeoutError:
            raise AssertionError(f"{event} {fields} not seen in {self.lines}") from None
        return found

    def declared(self) -> list[str]:
        """Return the names of the instances that were ever called orphans."""
        return [line["name"] for line in self.lines if line["event"] == "orphan"]

    async def orphans(self, *args: str, env: Mapping[str, str] | None = None) -> Result:
        """Run an `orphans` command on its records."""
        return await run("orphans", *args, "--records", str(self.records), env=env)

    async def listed(self) -> dict[str, Any]:
        """Return the open records by the names of their instances."""
        result = await self.orphans("list", "-o", "json")
        assert result.code == 0, result
        return {record["parameters"]["InstanceName"]: record for record in result.json.values()}


@contextlib.asynccontextmanager
async def running_agent(
    folder: Path, owners: Path, targets: Mapping[str, str], *options: str
) -> AsyncIterator[Agent]:
    """Run an agent for the time of the block."""
    given = [word for name, url in targets.items() for word in ("--target", f"{name}={url}")]
    wait = [] if "--wait-interval" in options else ["--wait-interval", WAIT]
    files = ["--owners", str(owners), "--records", str(folder / "orphans.db")]
    async with started("orphans", "run", *given, *files, *wait, *options) as process:
        agent = Agent(folder, targets, process)
        reading = asyncio.create_task(agent.read())
        await agent.logged("looking for orphans")
        yield agent
        process.terminate()
        async with asyncio.timeout(patience(30)):
            status = await process.wait()
            await reading
        assert status == 0, agent.lines
    troubled = [line for line in agent.lines if "exception" in line or "Traceback" in line["event"]]
    assert not troubled, troubled
    assert foreign(agent.lines) == []


async def judged(agent: Agent, create: Callable[[], Any], name: str) -> None:
    """Wait until whatever was there before has been judged: an orphan of our own is, and it came last."""
    await create()
    await agent.logged("orphan", name=name)
