"""Chaos: clients work, the daemon is killed again and again, and every process is accounted for.

    python -m tests.chaos.storm --stable 500 --rounds 100 --seed 1 [--lose-journal]

prints a summary of what was done, what survived and what was lost as JSON, and exits with 1 if anything was.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio

from instance_manager.client import Client
from instance_manager.pb.imrpc import imrpc_pb2 as pb
from tests.support.daemon import BIN, Daemon, marked, port_span, stub
from tests.support.patience import patience

LIST_WITHIN = 5.0
"""Seconds from the kill to a complete list."""
CHURN = 10
"""Names with which the clients work all the time."""


@dataclass(frozen=True)
class Seen:
    """What must not change about a process that nobody touches."""

    uuid: str
    pid: int
    ports: tuple[int, int]


@dataclass
class Summary:
    """What was done, what survived and what was lost."""

    seed: int
    rounds: int = 0
    stable: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    broken_calls: int = 0
    """Calls whose answer was lost with the daemon."""
    list_seconds: list[float] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    left: list[int] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing was lost."""
        return not (self.changed or self.duplicated or self.unlisted or self.lost or self.left)


class Guarded(Daemon):
    """A daemon under guard."""

    def __init__(self, folder: Path, *options: str) -> None:
        super().__init__(folder, *options)
        self.prefix = (str(BIN), "guard", "--state-dir", str(folder / "state"), "--restarts", "1000", "--")

    def daemon_pid(self) -> int:
        """Return the PID of the daemon that runs now."""
        return int(self.serving[-1]["pid"])

    def times_served(self) -> int:
        """Return how often a daemon has begun to serve."""
        return len(self.serving)

    def instances(self) -> list[int]:
        """Return the PIDs of the living instances."""
        return [pid for pid in marked(self.marker) if "INSTANCE_MANAGER_UUID" in environment(pid)]

    async def named(self, names: set[str], within: float = 10) -> dict[str, int]:
        """Wait until instances of these names show, and return their PIDs.

        A process shows no environment in the middle of its execve.
        """
        async with self.client() as client, asyncio.timeout(patience(within)):
            while True:
                pids = {environment(pid).get("INSTANCE_MANAGER_NAME", ""): pid for pid in self.instances()}
                if pids.keys() >= names:
                    return pids
                await client.health()

    async def served_after(self, times: int) -> None:
        """Wait until a daemon has begun to serve more than so many times."""
        await self._await(lambda: self.times_served() > times or None, within=20)


class Storm:
    """One run."""

    def __init__(self, folder: Path, *, stable: int, seed: int, lose_journal: bool) -> None:
        first, last = port_span()
        options = ("--stop-timeout", "2", "--port-range", f"{first}-{last}")
        self.daemon = Guarded(folder, *options)
        self.random = random.Random(seed)
        self.summary = Summary(seed=seed, stable=stable)
        self.lose_journal = lose_journal
        self.other = folder / "next-engine"
        self.other.write_text(f'#!/bin/sh\nexec {BIN} "$@"\n')
        self.other.chmod(0o755)
        self.stable: dict[str, Seen] = {}

    async def run(self, rounds: int) -> Summary:
        """Fill the node, storm it, and look at what is left in the end."""
        try:
            await self.daemon.start()
            await self._fill()
            for _ in range(rounds):
                await self._round()
            await self._empty()
        finally:
            self.summary.left = await self.daemon.clean_up()
        return self.summary

    async def _fill(self) -> None:
        names = [f"stable-{n}" for n in range(self.summary.stable)]
        async with self.daemon.client() as client:
            for begin in range(0, len(names), 20):
                batch = names[begin : begin + 20]
                specs = [stub(name, "--log-rate", "2", ports=2) for name in batch]
                await asyncio.gather(*(client.process_create(spec) for spec in specs))
                await running(client, batch)
            listed = await client.process_list()
        self.stable = {name: seen(listed[name], self._leaders()) for name in names}

    async def _round(self) -> None:
        """Let clients work, kill the daemon in the middle of it, and compare list and processes."""
        work = [asyncio.create_task(self._work(f"churn-{n}")) for n in range(CHURN)]
        served = self.daemon.times_served()
        enough = sum(self.summary.calls.values()) + self.random.randint(5, 40)
        await wait_for(lambda: sum(self.summary.calls.values()) >= enough, work)
        os.kill(self.daemon.daemon_pid(), signal.SIGKILL)
        killed = time.monotonic()
        if self.lose_journal:
            for path in (self.daemon.folder / "state").glob("journal.db*"):
                path.unlink(missing_ok=True)
        await self.daemon.served_after(served)
        async with self.daemon.client() as client:
            listed = await client.process_list()
            self.summary.list_seconds.append(round(time.monotonic() - killed, 3))
            for task in work:
                task.cancel()
            for result in await asyncio.gather(*work, return_exceptions=True):
                # A client ends when it is told to; whatever else it met is a failure of the storm.
                if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                    raise result
            self._compare_stable(listed)
            await self._compare_all(client)
        self.summary.rounds += 1

    async def _work(self, name: str) -> None:
        """Create, replace and delete one name for ever; start over when the daemon goes away."""
        while True:
            served = self.daemon.times_served()
            with contextlib.suppress(grpc.aio.AioRpcError):
                async with self.daemon.client() as client:
                    while True:
                        await self._step(client, name)
            await self.daemon.served_after(served)

    async def _step(self, client: Client, name: str) -> None:
        action = self.random.choice(["create", "create", "delete", "replace"])
        try:
            if action == "create":
                await client.process_create(stub(name, "--ignore", "SIGHUP", ports=2))
            elif action == "delete":
                await client.process_delete(name)
            else:
                spec = stub(name, ports=2)
                spec.binary = str(self.other)
                await client.process_replace(spec)
        except grpc.aio.AioRpcError as error:
            self.summary.calls[f"{action} {error.code().name}"] += 1
            if error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}:
                self.summary.broken_calls += 1
                raise
        else:
            self.summary.calls[action] += 1

    def _leaders(self) -> dict[str, list[int]]:
        """Return the PIDs of the living instances by UUID: those that lead a session of their own."""
        found: dict[str, list[int]] = {}
        for pid in marked(self.daemon.marker):
            uuid = environment(pid).get("INSTANCE_MANAGER_UUID")
            with contextlib.suppress(ProcessLookupError):
                if uuid and os.getsid(pid) == pid:
                    found.setdefault(uuid, []).append(pid)
        return found

    def _compare_stable(self, listed: dict[str, pb.ProcessResponse]) -> None:
        leaders = self._leaders()
        for name, before in self.stable.items():
            if name not in listed:
                self.summary.lost.append(name)
            elif (now := seen(listed[name], leaders)) != before or listed[name].status.state != "running":
                self.summary.changed.append(f"{name}: {before} -> {now} {listed[name].status.state}")

    async def _compare_all(self, client: Client) -> None:
        """Wait until what lives is exactly what is listed as living; whatever differs for long is lost."""
        deadline = time.monotonic() + patience(15)
        while True:
            listed = await client.process_list()
            leaders = self._leaders()
            alive = {u for u, pids in leaders.items() if pids}
            living = {"starting", "running", "stopping"}
            told = {p.status.uuid for p in listed.values() if p.status.state in living}
            if alive == told:
                break
            if time.monotonic() > deadline:
                self.summary.unlisted += sorted(alive - told)
                self.summary.lost += sorted(told - alive)
                break
        self.summary.duplicated += [uuid for uuid, pids in leaders.items() if len(pids) > 1]

    async def _empty(self) -> None:
        async with self.daemon.client() as client:
            for name in await client.process_list():
                # One whose deletion was under way may be gone by now.
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await client.process_delete(name)
            async with asyncio.timeout(patience(30)):
                while await client.process_list():
                    pass


def seen(process: pb.ProcessResponse, leaders: dict[str, list[int]]) -> Seen:
    """Return what must not change about a process."""
    status = process.status
    pids = leaders.get(status.uuid, [0])
    return Seen(status.uuid, pids[0], (status.port_start, status.port_end))


def environment(pid: int) -> dict[str, str]:
    """Return the environment of a process, empty if it is gone."""
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
        return dict(entry.split("=", 1) for entry in text.split("\0") if "=" in entry)
    return {}


async def running(client: Client, names: list[str]) -> None:
    """Wait until all of them run."""
    async with asyncio.timeout(patience(120)):
        while True:
            listed = await client.process_list()
            if all(listed[name].status.state == "running" for name in names):
                return


async def wait_for(condition: Callable[[], bool], work: list[asyncio.Task[None]]) -> None:
    """Wait until the workers have got so far."""
    async with asyncio.timeout(patience(60)):
        while not condition():
            done, _ = await asyncio.wait(work, timeout=0.01)
            for task in done:
                task.result()


async def main() -> int:
    """Run a storm and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stable", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lose-journal", action="store_true")
    parser.add_argument("--list-within", type=float, default=LIST_WITHIN, help="seconds")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        storm = Storm(Path(folder), stable=args.stable, seed=args.seed, lose_journal=args.lose_journal)
        summary = await storm.run(args.rounds)
    print(json.dumps(vars(summary) | {"clean": summary.clean}, indent=2))  # noqa: T201
    return 0 if summary.clean and max(summary.list_seconds) <= args.list_within else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
