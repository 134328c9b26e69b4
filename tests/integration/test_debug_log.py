"""What the daemon does can be followed step by step in its log, as a whole or area by area."""

import contextlib
import functools
import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from instance_manager.client import Client
from instance_manager.pb.imrpc import common_pb2
from instance_manager.pb.imrpc import instance_pb2 as pb
from instance_manager.platform.logging import AREAS
from tests.support.daemon import BIN, Daemon, Watch, shell, sleeper, stub
from tests.support.disks import tmpfs
from tests.support.patience import patience
from tests.support.spdk.process import SpdkProcess

Step = dict[str, Any]
OPTIONS = ("--stop-timeout", "1", "--shutdown-grace", "2", "--ready-timeout", str(patience(1)))


class Node:
    """A node whose daemon may die and come back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.daemon: Daemon

    async def start(self, *options: str, debug: bool = False) -> Daemon:
        """Start a daemon, which adopts the processes of the one before."""
        following = Daemon(self.folder, *OPTIONS, *options)
        following.prefix = (str(BIN), *(["--debug"] if debug else []))
        if hasattr(self, "daemon"):
            following.marker = self.daemon.marker
        self.daemon = following
        await following.start()
        return following

    async def kill(self) -> None:
        """Kill the daemon without warning."""
        os.kill(self.daemon.pid, signal.SIGKILL)
        await self.daemon.ended()


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    node = Node(tmp_path)
    try:
        yield node
    finally:
        left = await node.daemon.clean_up()
    assert left == []


def fits(line: Step, step: Step) -> bool:
    """Tell whether a line shows a step: a string has to be in the value, anything else equal to it."""
    return all(
        value in str(line.get(key)) if isinstance(value, str) and key != "event" else line.get(key) == value
        for key, value in step.items()
    )


async def followed(daemon: Daemon, *steps: Step) -> None:
    """Wait for lines that show these steps, in this order; others may be between them."""
    begin = 0

    def is_next(step: Step, line: Step) -> bool:
        return fits(line, step) and line in daemon.lines[begin:]

    for step in steps:
        found = await daemon.logged(functools.partial(is_next, step))
        assert found["level"] == "debug"
        begin = daemon.lines.index(found, begin) + 1


def attempt(outcome: str) -> Step:
    return {"event": "readiness attempt", "outcome": outcome}


def sent(name: str, pid: int, *, group: bool) -> Step:
    return {"event": "signal sent", "signal": name, "pid": pid, "group": group}


def transition(event: str, state: str) -> Step:
    return {"event": "transition", "on": event, "state": state}


def action(what: str) -> Step:
    return {"event": "action", "action": what}


async def test_a_create_is_followed_from_the_log_file_to_readiness(node: Node) -> None:
    daemon = await node.start(debug=True)
    async with daemon.client() as client, Watch(client) as watch:
        created = await client.process_create(stub("r", "--ready-after", "0.3"))
        await watch.state("r", "running")
        (pid,) = daemon.descendants()
        await followed(
            daemon,
            action("Spawn()"),
            {"event": "log opened", "name": "r"},
            {"event": "spawned", "uuid": created.status.uuid, "pid": pid, "command": "--ready-after"},
            transition(f"Spawned(identity=Identity(pid={pid},", "starting"),
            action("AwaitReady()"),
            attempt("nothing listens"),
            attempt("connected"),
            attempt("serving"),
            transition("Ready()", "running"),
        )


async def test_a_readiness_failure_is_followed_to_the_end_of_the_process(node: Node) -> None:
    daemon = await node.start(debug=True)
    async with daemon.client() as client, Watch(client) as watch:
        await client.process_create(stub("r", "--not-serving"))
        pid = (await daemon.logged(lambda line: line["event"] == "spawned"))["pid"]
        await watch.state("r", "error")
        await followed(
            daemon,
            {"event": "spawned", "pid": pid},
            attempt("connected"),
            attempt("says NOT_SERVING"),
            transition("NotReady(reason=", "error"),
            action("Signal(name='SIGINT'"),
            sent("SIGINT", pid, group=False),
            action("StartTimer("),
            {"event": "ended", "pid": pid, "status": "0"},
            transition("Exited(status=ExitStatus(code=0", "error"),
            action("KillTree("),
            ENDED[await containment_of(daemon)](0)[-1],
            transition("TreeGone()", "error"),
        )


async def containment_of(daemon: Daemon) -> str:
    """Return how a daemon tells what belongs to an instance."""
    return str((await daemon.logged(lambda line: line["event"] == "containment"))["kind"])


ENDED: dict[str, Callable[[int], list[Step]]] = {
    "session": lambda helper: [
        {"event": "descendants stopped", "pids": [helper]},
        {"event": "descendants killed", "pids": [helper]},
        {"event": "descendant reaped", "pid": helper},
        {"event": "no descendants left"},
    ],
    "cgroup": lambda _: [{"event": "cell killed"}, {"event": "cell removed"}],
}


@pytest.mark.parametrize("containment", ["auto", "session"])
async def test_a_stop_is_followed_through_its_escalation_to_the_last_descendant(
    node: Node, containment: str
) -> None:
    daemon = await node.start("--containment", containment, debug=True)
    kind = await containment_of(daemon)
    async with daemon.client() as client, Watch(client) as watch:
        await client.process_create(stub("r", "--ignore", "SIGINT", "--helpers", "1"))
        await watch.state("r", "running")
        await daemon.has_descendants(2)
        pid = (await daemon.logged(lambda line: line["event"] == "spawned"))["pid"]
        (helper,) = set(daemon.descendants()) - {pid}
        await client.process_delete("r")
        await watch.state("r", "deleted")
        await followed(
            daemon,
            transition("StopRequested(", "stopping"),
            sent("SIGINT", pid, group=False),
            transition("StopTimedOut(", "stopping"),
            sent("SIGKILL", pid, group=True),
            {"event": "ended", "pid": pid, "status": "SIGKILL"},
            *(ENDED[kind](helper)),
            transition("TreeGone()", "stopped"),
            action("Remove()"),
        )


async def test_an_adoption_is_followed_process_by_process(node: Node) -> None:
    daemon = await node.start(debug=True)
    async with daemon.client() as client, Watch(client) as watch:
        await client.process_create(shell("s", "/bin/sleep 1000; true"))
        await watch.state("s", "running")
    await daemon.has_descendants(2)
    pid = (await daemon.logged(lambda line: line["event"] == "spawned"))["pid"]
    await node.kill()
    daemon = await node.start(debug=True)
    await followed(
        daemon,
        {"event": "adoptable", "pid": pid},
        {"event": "judged", "pid": pid, "found": "alive"},
        {"event": "adopt", "name": "s", "recorded": "running", "alive": True},
    )


async def live(_node: Node, client: Client, watch: Watch) -> None:
    """Take an instance from its creation to its end."""
    await client.process_create(stub("r"))
    await watch.state("r", "running")
    await client.process_delete("r")


async def change_mounts(node: Node, _client: Client, _watch: Watch) -> None:
    with tmpfs(node.folder / "mounted", "size=1m"):
        await node.daemon.logged(lambda line: line["event"] == "mounts read")


async def fail_to_write_the_journal(node: Node, client: Client, watch: Watch) -> None:
    with contextlib.closing(sqlite3.connect(node.folder / "state" / "journal.db")) as journal:
        journal.execute("BEGIN EXCLUSIVE")
        await live(node, client, watch)


async def call_spdk(_node: Node, client: Client, _watch: Watch) -> None:
    replica = pb.InstanceSpec(
        name="v-r-0",
        type="replica",
        data_engine=common_pb2.DATA_ENGINE_V2,
        spdk_instance_spec=pb.SpdkInstanceSpec(disk_name="disk", size=1 << 20),
    )
    await client.instance_create(replica)


async def end_the_adopted(_node: Node, client: Client, _watch: Watch) -> None:
    await client.process_delete("adopted")


DETAILS: dict[str, tuple[str, Callable[[Node, Client, Watch], Awaitable[None]]]] = {
    "adoption": ("exit record read", end_the_adopted),
    "api": ("call", live),
    "journal": ("journal attempt failed", fail_to_write_the_journal),
    "logs": ("log opened", live),
    "mounts": ("mounts read", change_mounts),
    "process": ("spawned", live),
    "readiness": ("readiness attempt", live),
    "recovery": ("exit record read", end_the_adopted),
    "spdk": ("call forwarded", call_spdk),
    "supervisor": ("transition", live),
}
"""By area, a line of it, and what makes the daemon log it."""


def test_each_area_is_tried() -> None:
    assert DETAILS.keys() == AREAS.keys()


@pytest.mark.parametrize("area", AREAS)
async def test_an_area_has_lines_when_only_that_area_logs_in_detail(
    node: Node, area: str, spdk: SpdkProcess
) -> None:
    spdk_options = ("--spdk-enabled", "--spdk-service-address", spdk.address)
    await node.start(*spdk_options)
    async with node.daemon.client() as client, Watch(client) as watch:
        await client.process_create(sleeper("adopted"))
        await watch.state("adopted", "running")
    await node.kill()
    daemon = await node.start(*spdk_options)
    async with daemon.client() as client, Watch(client) as watch:
        await client.set_log_level("error")
        await client.set_log_flags(area)
        before = len(daemon.lines)
        event, act = DETAILS[area]
        await act(node, client, watch)
        await daemon.logged(lambda line: line["event"] == event)
        foreign = {other for other, _ in DETAILS.values()} - {event}
        # An adopted process is one of the area `process` too.
        foreign -= {"exit record read"} if area == "process" else set()
        assert foreign.isdisjoint(line["event"] for line in daemon.lines[before:])
