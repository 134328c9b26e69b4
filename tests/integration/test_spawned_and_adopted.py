"""What an instance is given holds for good, whether this daemon has started it or an earlier one."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import grpc.aio
import pytest

from instance_manager.client import Client
from instance_manager.pb.imrpc import imrpc_pb2 as pb
from tests.support.daemon import Daemon, Watch, shell, stub
from tests.support.patience import patience
from tests.support.processes import eventually

MIB = 1 << 20
OPTIONS = ("--stop-timeout", "2", "--shutdown-grace", "1", "--echo-logs", "--log-max-size", "1")
DEADLINE = patience(30)

Existing = Callable[..., Awaitable[None]]


class Node:
    """A node whose daemon may be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.daemon = Daemon(folder, *OPTIONS)

    async def start_again(self) -> None:
        self.daemon.process.kill()
        await self.daemon.ended()
        following = Daemon(self.daemon.folder, *OPTIONS)
        following.marker = self.daemon.marker
        self.daemon = following
        await following.start()


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    node = Node(tmp_path)
    try:
        await node.daemon.start()
        yield node
    finally:
        left = await node.daemon.clean_up()
    assert left == []


@pytest.fixture(params=["spawned", "adopted"])
def existing(request: pytest.FixtureRequest, node: Node) -> Existing:
    """Create an instance; it is of this daemon, or of one that was killed since."""

    async def create(spec: pb.ProcessSpec, state: str = "running") -> None:
        async with node.daemon.client() as client, Watch(client) as watch:
            await client.process_create(spec)
            await watch.state(spec.name, state)
        if request.param == "adopted":
            await node.start_again()

    return create


def waiting(folder: Path, name: str = "r") -> pb.ProcessSpec:
    """Return the spec of an instance that runs each line of a file `commands` as soon as it is written."""
    commands = folder / "commands"
    commands.touch()
    return shell(name, f'echo first; tail -f -n +1 {commands} | while read -r line; do eval "$line"; done')


def tell(folder: Path, command: str) -> None:
    with (folder / "commands").open("a") as file:
        file.write(f"{command}\n")


async def lines_of(client: Client, name: str) -> list[str]:
    async with asyncio.timeout(DEADLINE):
        return [line async for line in client.process_log(name)]


async def test_its_log_is_bounded(node: Node, existing: Existing, tmp_path: Path) -> None:
    await existing(waiting(tmp_path))
    tell(tmp_path, "head -c 5000000 /dev/zero | tr '\\0' x | fold -w 99; echo; echo last")
    path = node.daemon.logs / "r.log"
    await eventually(lambda: path.stat().st_size < MIB and path.read_bytes().endswith(b"\nlast\n"))
    assert path.stat().st_size > MIB // 4


async def test_its_log_is_echoed(node: Node, existing: Existing, tmp_path: Path) -> None:
    await existing(waiting(tmp_path))
    async with node.daemon.client() as client, asyncio.timeout(DEADLINE):
        assert await anext(aiter(client.process_log("r", follow=True))) == "first"  # by now it is followed
    tell(tmp_path, "echo second")
    await node.daemon.echoed(lambda line: line == "[r] second")


async def test_its_log_is_followed_until_it_is_deleted(
    node: Node, existing: Existing, tmp_path: Path
) -> None:
    await existing(waiting(tmp_path))
    async with node.daemon.client() as client, asyncio.timeout(DEADLINE):
        lines = aiter(client.process_log("r", follow=True))
        assert await anext(lines) == "first"
        tell(tmp_path, "echo second")
        assert await anext(lines) == "second"
        await client.process_delete("r")
        assert [line async for line in lines] == []


@pytest.mark.parametrize("how", ["rotated", "removed"])
async def test_a_log_that_was_taken_away_is_read_and_bounded_all_the_same(
    node: Node, existing: Existing, tmp_path: Path, how: str
) -> None:
    path = node.daemon.logs / "r.log"
    spec = waiting(tmp_path)
    async with node.daemon.client() as client, Watch(client) as watch:
        await client.process_create(spec)
        await watch.state("r", "running")
        await eventually(lambda: path.exists() and path.stat().st_size)
    if how == "rotated":
        path.rename(path.with_name("r.log.1"))
    else:
        path.unlink()
    await existing(waiting(tmp_path, "other"))
    async with node.daemon.client() as client, asyncio.timeout(DEADLINE):
        lines = aiter(client.process_log("r", follow=True))
        assert await anext(lines) == "first"
        tell(tmp_path, "echo second")
        assert await anext(lines) == "second"
        tell(tmp_path, "head -c 3000000 /dev/zero | tr '\\0' x | fold -w 99; echo; echo last")
        async for line in lines:
            if line == "last":
                break
        await eventually(lambda: held(node, "r").stat().st_size < MIB)


def held(node: Node, name: str) -> Path:
    """Return the file that an instance writes."""
    for pid in node.daemon.descendants():
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        if f"INSTANCE_MANAGER_NAME={name}".encode() in environment:
            return Path(f"/proc/{pid}/fd/1")
    raise AssertionError(f"{name} is not alive")


async def test_it_runs_as_soon_as_it_serves(node: Node, existing: Existing) -> None:
    await existing(stub("r", "--ready-after", "3"), "starting")
    async with node.daemon.client() as client, Watch(client) as watch:
        if (await client.process_get("r")).status.state == "starting":
            await watch.state("r", "running")
        assert (await client.process_get("r")).status.state == "running"


async def test_its_conditions_and_figures_are_told(node: Node, existing: Existing) -> None:
    await existing(stub("vol-e-0", kind="engine"))
    async with node.daemon.client() as client:
        found = (await client.process_get("vol-e-0")).status
    assert dict(found.conditions) == {"FilesystemReadOnly": False}
    _, page = await node.daemon.http("/metrics")
    assert 'instance_manager_processes{state="running",type="engine"} 1.0' in page
    assert "instance_manager_logs_lost 0.0" in page
    assert set(re.findall(r"instance_manager_background_up\{.*\} (.*)", page)) == {"1.0"}


async def test_it_is_deleted_with_all_that_is_left_of_it_and_its_log_remains(
    node: Node, existing: Existing
) -> None:
    await existing(stub("r", "--helpers", "2", "--ignore", "SIGINT"))
    async with node.daemon.client() as client, Watch(client) as watch:
        await client.process_delete("r")
        await watch.state("r", "deleted", within=30)
        assert node.daemon.descendants() == []
        assert any("listening" in line for line in await lines_of(client, "r"))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await client.process_get("r")
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND
    _, page = await node.daemon.http("/metrics")
    assert 'instance_manager_processes{state="running",type="replica"} 0.0' in page


async def test_one_without_a_log_is_told_to_have_none(node: Node, existing: Existing) -> None:
    path = node.daemon.logs / "r.log"
    path.mkdir()
    await existing(shell("r", "exec sleep 1000"))
    await node.daemon.logged(lambda line: line["event"] == "the logs of a process are lost for its lifetime")
    _, page = await node.daemon.http("/metrics")
    assert "instance_manager_logs_lost 1.0" in page
