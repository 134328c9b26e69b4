"""Whatever clients send, or do not read: a single one costs at most 64 MiB, all together 256 MiB."""

import asyncio
import contextlib
import itertools
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format

from instance_manager.api.listeners import Offset
from instance_manager.api.server import (
    MAX_CALLS_PER_CONNECTION,
    MAX_CONNECTIONS,
    MAX_METADATA_BYTES,
)
from instance_manager.api.service import MAX_ENTRIES, MAX_LARGE_REQUEST_BYTES, MAX_REQUEST_BYTES
from instance_manager.pb.imrpc import disk_pb2, instance_pb2, proxy_pb2
from instance_manager.pb.imrpc import imrpc_pb2 as pb
from tests.support.certificates import Authority, fill
from tests.support.daemon import Daemon, Watch, running_daemon, shell
from tests.support.engine.flooding import flooding_engine
from tests.support.engine.process import EngineProcess
from tests.support.engine.served import ProxyClient
from tests.support.flood import EMPTY, HALF, Flood, Floods
from tests.support.http2 import Http2Client
from tests.support.patience import patience
from tests.support.spdk.process import SpdkProcess

ONE_CLIENT = 64 << 20
ALL_CLIENTS = 256 << 20
SERVICE = "/ProcessManagerService"
PROXY = "/imrpc.ProxyEngineService"
Clients = pytest.mark.parametrize(
    ("clients", "most"), [(1, ONE_CLIENT), (6, ALL_CLIENTS)], ids=["one", "all"]
)
OneOrAll = pytest.mark.parametrize(
    ("clients", "most"),
    [(1, ONE_CLIENT), pytest.param(6, ALL_CLIENTS, marks=pytest.mark.full)],
    ids=["one", "all"],
)
"""For what takes long with many clients."""


def resident(pid: int) -> int:
    """Return how many bytes of memory a process has now."""
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def peak(pid: int) -> int:
    """Return how many bytes a process has had at most since `forget_peak`."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "VmHWM" in line)
    return int(line.split()[1]) << 10


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


@contextlib.asynccontextmanager
async def grows_at_most(daemon: Daemon, most: int) -> AsyncIterator[None]:
    """Check that the daemon takes no more than `most` bytes in addition, and still answers."""
    before = resident(daemon.pid)
    forget_peak(daemon.pid)
    yield
    async with daemon.client() as client, asyncio.timeout(patience(60)):
        while True:
            # What the others have sent is still refused for a moment, whoever calls.
            with contextlib.suppress(grpc.aio.AioRpcError):
                assert await client.health() == "SERVING"
                break
    assert peak(daemon.pid) - before <= most, f"{(peak(daemon.pid) - before) >> 20} MiB"


@pytest.fixture
async def exposed(tmp_path: Path) -> AsyncIterator[Daemon]:
    async with running_daemon(tmp_path, "--listen", "127.0.0.1:0", "--stop-timeout", "1") as daemon:
        yield daemon


@contextlib.contextmanager
def connections(daemon: Daemon, count: int, offset: Offset = Offset.PROCESS) -> Iterator[list[Http2Client]]:
    target = daemon.serving[-1]["addresses"][offset]
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Http2Client(target)) for _ in range(count)]


def ask(
    clients: list[Http2Client], method: str, content: bytes = b"", count: int = MAX_CALLS_PER_CONNECTION
) -> None:
    """Make calls, and read no answer."""
    for client in clients:
        for _ in range(count):
            client.call(method, content)
        client.send_on(20)
    for client in clients:
        while client.receive(1):
            continue


@pytest.mark.timeout(180)
@Clients
async def test_requests_that_are_half_sent(exposed: Daemon, clients: int, most: int) -> None:
    async with grows_at_most(exposed, most):
        with connections(exposed, clients) as opened:

            def send() -> None:
                for client in opened:
                    for _ in range(MAX_CALLS_PER_CONNECTION):
                        client.call(f"{SERVICE}/ProcessCreate", b"x" * MAX_REQUEST_BYTES, without=1)
                    client.send_on(30)

            await asyncio.to_thread(send)
            # A client that sends all of its request does not wait for them for long.
            async with exposed.client() as client, asyncio.timeout(patience(30)):
                for number in itertools.count():
                    # The client's own patience does not know how busy the machine is.
                    with contextlib.suppress(grpc.aio.AioRpcError):
                        await client.process_create(shell(f"a{number}", "exit 0"))
                        break


@pytest.mark.timeout(180)
@OneOrAll
@pytest.mark.parametrize(
    ("method", "without"), [("SnapshotBackup", 0), ("VolumeGet", 0), ("SnapshotBackup", 1)]
)
async def test_large_requests_through_the_proxy(
    exposed: Daemon, sized: Callable[[int, int], int], *, clients: int, most: int, method: str, without: int
) -> None:
    """For an engine that never answers; what is not taken is refused."""
    with EngineProcess() as engine:
        await engine.tell(hang="*", at="*")
        which = proxy_pb2.ProxyEngineRequest(address=engine.address)
        content = proxy_pb2.EngineSnapshotBackupRequest(
            proxy_engine_request=which, envs=[f"AWS_CERT={'c' * (MAX_LARGE_REQUEST_BYTES - 100)}"]
        ).SerializeToString()
        async with grows_at_most(exposed, most):
            with connections(exposed, clients, Offset.PROXY) as opened:

                def send() -> None:
                    for client in opened:
                        for _ in range(MAX_CALLS_PER_CONNECTION):
                            client.call(f"{PROXY}/{method}", content, without=without)
                    for client in opened:
                        client.send_on(sized(2, 10))

                await asyncio.to_thread(send)
                # Another client does not wait for them for long.
                async with grpc.aio.insecure_channel(
                    exposed.serving[-1]["addresses"][Offset.PROXY]
                ) as channel:
                    code, _ = await ProxyClient(channel).error("BackupRestoreFinish", {})
                assert code == "UNIMPLEMENTED"


LONG = "n" * ((256 << 10) - 300)
ASKED: dict[str, tuple[Offset, str, dict[str, Any]]] = {
    "a read of v1": (Offset.PROXY, f"{PROXY}/SnapshotHashStatus", {"snapshot_name": LONG}),
    "names": (Offset.PROXY, f"{PROXY}/SnapshotRemove", {"names": [""] * 130_000}),
    "a few names": (Offset.PROXY, f"{PROXY}/SnapshotRemove", {"names": ["n" * 60] * MAX_ENTRIES}),
    "labels": (
        Offset.PROXY,
        f"{PROXY}/SnapshotBackup",
        {"labels": {f"{each:x}": "" for each in range(110_000)}},
    ),
    "a disk": (Offset.DISK, "/imrpc.DiskService/DiskGet", {"disk_type": "block", "disk_name": LONG}),
    "a change of v2": (
        Offset.INSTANCE,
        "/imrpc.InstanceService/InstanceDelete",
        {"name": "r1", "type": "replica", "data_engine": "DATA_ENGINE_V2", "uuid": LONG},
    ),
}
KINDS: dict[str, Any] = {
    f"{PROXY}/SnapshotHashStatus": proxy_pb2.EngineSnapshotHashStatusRequest,
    f"{PROXY}/SnapshotRemove": proxy_pb2.EngineSnapshotRemoveRequest,
    f"{PROXY}/SnapshotBackup": proxy_pb2.EngineSnapshotBackupRequest,
    "/imrpc.DiskService/DiskGet": disk_pb2.DiskGetRequest,
    "/imrpc.InstanceService/InstanceDelete": instance_pb2.InstanceDeleteRequest,
}


@pytest.mark.timeout(180)
@OneOrAll
@pytest.mark.parametrize("asked", ASKED)
async def test_requests_for_engines_and_services_that_hang(
    tmp_path: Path, spdk: SpdkProcess, clients: int, most: int, asked: str
) -> None:
    offset, method, fields = ASKED[asked]
    options = ("--listen", "127.0.0.1:0", "--spdk-enabled", "--spdk-service-address", spdk.address)
    async with running_daemon(tmp_path, *options, "--stop-timeout", "1") as daemon:
        with EngineProcess() as engine:
            await engine.tell(hang="*", at="*")
            await spdk.tell(hang="*")
            request = json_format.ParseDict(fields, KINDS[method]())
            if offset is Offset.PROXY:
                request.proxy_engine_request.address = engine.address
            async with grows_at_most(daemon, most):
                with connections(daemon, clients, offset) as opened:
                    content = request.SerializeToString()
                    calls = MAX_CALLS_PER_CONNECTION // (1 + len(content) // MAX_REQUEST_BYTES)
                    await asyncio.to_thread(ask, opened, method, content, calls)


@pytest.mark.timeout(180)
@OneOrAll
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "half"])
@pytest.mark.parametrize(
    ("method", "size"),
    [
        ("MetricsGet", 3_900_000),
        ("MetricsGet", 30_000),
        ("SnapshotList", 3_900_000),
        ("SnapshotList", 1_000_000),
    ],
)
async def test_what_engines_answer(
    exposed: Daemon, clients: int, most: int, method: str, size: int, *, whole: bool
) -> None:
    """Meanwhile another client is answered what its engine tells."""
    async with flooding_engine(size, whole=whole) as address:
        with EngineProcess() as engine:
            content = proxy_pb2.ProxyEngineRequest(address=address).SerializeToString()
            async with grows_at_most(exposed, most):
                with connections(exposed, clients, Offset.PROXY) as opened:
                    flood = asyncio.create_task(asyncio.to_thread(ask, opened, f"{PROXY}/{method}", content))
                    target = exposed.serving[-1]["addresses"][Offset.PROXY]
                    async with grpc.aio.insecure_channel(target) as channel:
                        manager = ProxyClient(channel)
                        while not flood.done():
                            async with asyncio.timeout(patience(30)):
                                await manager.call("SnapshotList", {"address": engine.address})
                    await flood


@pytest.mark.timeout(180)
@Clients
async def test_lists_that_are_not_read(exposed: Daemon, clients: int, most: int) -> None:
    async with exposed.client() as client:
        for number in range(31):
            await client.process_create(
                pb.ProcessSpec(name=f"p{number}", binary="/no/such/program", args=["x" * 130_000])
            )
        assert pb.ProcessListResponse(processes=await client.process_list()).ByteSize() > 3 << 20
    async with grows_at_most(exposed, most):
        with connections(exposed, clients) as opened:
            await asyncio.to_thread(ask, opened, f"{SERVICE}/ProcessList")
            refused = [code for client in opened for code in client.codes.values()]
            assert len(refused) > clients * MAX_CALLS_PER_CONNECTION * 0.9
            # gRPC itself cancels calls that come faster than they are accepted.
            codes = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED)
            assert set(refused) <= {str(code.value[0]) for code in codes}
    line = await exposed.logged(lambda line: line["event"].startswith("call refused"))
    assert "still to read" in line["reason"]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("line", [10, 60, pytest.param(1000, marks=pytest.mark.slow), 100_000, 10_000_000])
async def test_logs_that_are_not_read(tmp_path: Path, line: int) -> None:
    script = f"head -c {line} /dev/zero | tr '\\0' x; echo"
    loop = f"i=0; while [ $i -lt {max(3, min(5000, 20_000_000 // line))} ]; do {script}; i=$((i+1)); done"
    if line < 1000:
        loop = f"yes {'x' * line} | head -n 200000"
    async with running_daemon(tmp_path, "--listen", "127.0.0.1:0", "--max-streams", "1000") as daemon:
        async with daemon.client() as client, Watch(client) as watch:
            await client.process_create(shell("a", loop))
            await watch.state("a", "stopped", 60)
        async with grows_at_most(daemon, ALL_CLIENTS):
            with connections(daemon, 4) as opened:
                content = pb.LogRequest(name="a").SerializeToString()
                await asyncio.to_thread(ask, opened, f"{SERVICE}/ProcessLog", content, 250)


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "method",
    [f"{SERVICE}/ProcessWatch", "/imrpc.InstanceService/InstanceWatch", "/grpc.health.v1.Health/Watch"],
)
async def test_watches_that_are_not_read(
    exposed: Daemon, method: str, sized: Callable[[int, int], int]
) -> None:
    async with grows_at_most(exposed, ALL_CLIENTS):
        with connections(exposed, 4) as opened:
            await asyncio.to_thread(ask, opened, method, b"", 240)
            async with exposed.client() as client, Watch(client) as watch:
                for number in range(sized(60, 1500)):
                    name = f"p{number}"
                    await client.process_create(
                        pb.ProcessSpec(name=name, binary="/no/such/program", args=["x" * 130_000])
                    )
                    await client.process_delete(name)
                    await watch.state(name, "deleted")


@pytest.mark.timeout(180)
async def test_processes_with_long_commands_that_come_and_go(
    exposed: Daemon, sized: Callable[[int, int], int]
) -> None:
    """The history, the backlogs and the caches are bounded in bytes, not only in number."""
    async with grows_at_most(exposed, ONE_CLIENT), exposed.client() as client, Watch(client) as watch:
        for number in range(sized(400, 1500)):
            name = f"p{number}"
            await client.process_create(
                pb.ProcessSpec(name=name, binary="/no/such/program", args=["x" * 130_000])
            )
            await client.process_delete(name)
            await watch.state(name, "deleted")
            watch.seen.clear()


async def flood(
    daemon: Daemon, content: bytes, *, headers: int, clients: int, calls: int, targets: int = 1
) -> None:
    """Make so many calls without pause, over so many connections to so many ports of the daemon."""
    small = [(f"x-h{number}", "vvvvvvvv") for number in range(headers)]
    method = f"{SERVICE}/VersionGet" if targets == 1 else "/grpc.health.v1.Health/Check"
    addresses = itertools.cycle(daemon.serving[-1]["addresses"][:targets])
    floods = [
        Flood(next(addresses), method, content, headers=small, open_=MAX_CALLS_PER_CONNECTION)
        for _ in range(clients)
    ]
    with Floods(floods) as making:
        async with asyncio.timeout(patience(120)):
            while making.made < calls and not all(each.closed for each in floods):  # noqa: ASYNC110
                await asyncio.sleep(0.05)  # a thread counts


@pytest.mark.timeout(180)
@pytest.mark.parametrize("content", [EMPTY, HALF], ids=["whole", "half"])
@pytest.mark.parametrize("headers", [20, 40, 400], ids=["few", "as many as there may be", "too many"])
@pytest.mark.parametrize("clients", [1, 16])
async def test_headers_of_calls_without_pause(
    exposed: Daemon, sized: Callable[[int, int], int], content: bytes, headers: int, clients: int
) -> None:
    calls = MAX_CALLS_PER_CONNECTION * clients * (sized(4, 40) if content == EMPTY else 1)
    async with grows_at_most(exposed, ONE_CLIENT if clients == 1 else ALL_CLIENTS):
        await flood(exposed, content, headers=headers, clients=clients, calls=calls)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("content", [EMPTY, HALF], ids=["whole", "half"])
@pytest.mark.parametrize(
    ("clients", "targets"), [pytest.param(64, 1, marks=pytest.mark.full), (200, 1), (200, 4)]
)
async def test_more_calls_than_there_may_be(
    exposed: Daemon, sized: Callable[[int, int], int], content: bytes, clients: int, targets: int
) -> None:
    """What a refused call has taken serves the next one."""
    async with grows_at_most(exposed, ALL_CLIENTS):
        calls = sized(100_000, 1_000_000)
        await flood(exposed, content, headers=40, clients=clients, calls=calls, targets=targets)


async def test_a_call_whose_headers_are_too_long_is_refused(exposed: Daemon) -> None:
    async with exposed.client() as client:
        for size in (MAX_METADATA_BYTES // 2, MAX_METADATA_BYTES):
            call: Any = client._channel.unary_unary(f"{SERVICE}/VersionGet")
            answer = call(b"", metadata=[("x", "y" * size)], timeout=patience(20))
            code = await answer.code()
            assert (code is grpc.StatusCode.OK) == (size < MAX_METADATA_BYTES)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("tls", [True, False], ids=["TLS", "plain text"])
async def test_connections_that_say_nothing(tmp_path: Path, tls: bool) -> None:
    """More than there may be; those that were not let in have been closed."""
    options = ["--tls-dir", str(fill(tmp_path / "tls", Authority().signed()))] if tls else []
    async with running_daemon(tmp_path, "--listen", "127.0.0.1:0", *options) as daemon:
        host, _, port = daemon.serving[-1]["addresses"][0].rpartition(":")
        before = resident(daemon.pid)
        with contextlib.ExitStack() as stack:
            opened = []
            for _ in range(MAX_CONNECTIONS + 100):
                opened.append(
                    stack.enter_context(socket.create_connection((host, int(port)), timeout=patience(20)))
                )
                opened[-1].setblocking(False)
            async with asyncio.timeout(patience(60)):
                while sum(map(is_closed, opened)) < 100:  # noqa: ASYNC110 - nothing tells
                    await asyncio.sleep(0.05)
            assert resident(daemon.pid) - before <= ALL_CLIENTS
            # The others are closed as well when they say nothing.
            async with asyncio.timeout(patience(60)):
                while not all(map(is_closed, opened)):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)


def is_closed(connection: socket.socket) -> bool:
    try:
        while connection.recv(4096):
            continue
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
