"""The daemon's own ports: one for each service that clients know, whatever the network has."""

import asyncio
import shutil
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.empty_pb2 import Empty
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from instance_manager.client import Client
from tests.support.certificates import Authority, fill
from tests.support.daemon import BIN, Daemon, Watch, port_span, running_daemon, sleeper, stub
from tests.support.patience import patience

PROCESS, PROXY, DISK, INSTANCE = range(4)
PROXY_METHOD = "/imrpc.ProxyEngineService/ReplicaList"
DISK_METHOD = "/imrpc.DiskService/VersionGet"
DISKS = {"imrpc.DiskService"}
IPV6_ONLY = 'ip link set lo up && ip addr del 127.0.0.1/8 dev lo && exec "$@"'
AUTHORITY = Authority()


@pytest.fixture
def four() -> int:
    """The first of four ports in a row that are free."""
    first = port_span()[1] - 20
    with ExitStack() as probes:
        for port in range(first, first + 4):
            probes.enter_context(socket.create_server(("127.0.0.1", port)))
    return first


def targets(daemon: Daemon) -> list[str]:
    return list(daemon.serving[-1]["addresses"])


async def call(channel: grpc.aio.Channel, method: str) -> Any:
    unary: Any = channel.unary_unary(
        method, request_serializer=Empty.SerializeToString, response_deserializer=Empty.FromString
    )
    return await unary(Empty(), timeout=patience(20))


async def listed(channel: grpc.aio.Channel) -> set[str]:
    """Return the services that a server names, as for `grpcurl list`."""
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type]
    asked = reflection_pb2.ServerReflectionRequest(list_services="*")
    answers = stub.ServerReflectionInfo(iter([asked]), timeout=patience(20))
    async for answer in answers:
        return {each.name for each in answer.list_services_response.service}
    raise AssertionError("no answer")


async def test_the_daemon_takes_four_ports_in_a_row(tmp_path: Path, four: int) -> None:
    async with running_daemon(tmp_path, "--listen", f"127.0.0.1:{four}") as daemon:
        assert targets(daemon) == [f"127.0.0.1:{four + offset}" for offset in range(4)]
        for target in targets(daemon):
            async with Client(f"tcp://{target}") as client:
                assert await client.health() == "SERVING"


async def test_each_port_names_what_it_serves(tmp_path: Path) -> None:
    ours = {
        "ProcessManagerService",
        "imrpc.InstanceService",
        "instance_manager.v1.EventService",
        "instance_manager.v1.AuditService",
        "instance_manager.v1.StatusService",
    }
    always = {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    async with running_daemon(tmp_path, "--listen", "127.0.0.1:0") as daemon:
        for offset, target in enumerate(targets(daemon)):
            async with grpc.aio.insecure_channel(target) as channel:
                named = await listed(channel)
            served = {PROCESS: ours, PROXY: {"imrpc.ProxyEngineService"}, DISK: DISKS, INSTANCE: ours}
            assert named == always | served[offset]


async def test_what_is_not_served_is_unimplemented(tmp_path: Path) -> None:
    async with running_daemon(tmp_path, "--listen", "127.0.0.1:0") as daemon:
        for offset, method in (
            (PROCESS, PROXY_METHOD),
            (PROCESS, DISK_METHOD),
            (PROXY, "/ProcessManagerService/ProcessList"),
            (DISK, "/imrpc.InstanceService/InstanceList"),
        ):
            async with grpc.aio.insecure_channel(targets(daemon)[offset]) as channel:
                with pytest.raises(grpc.aio.AioRpcError) as error:
                    await call(channel, method)
            assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED, method


async def test_a_unix_socket_has_them_all(daemon: Daemon) -> None:
    async with (
        daemon.client() as client,
        grpc.aio.insecure_channel(f"unix:{daemon.folder}/im.sock") as channel,
    ):
        assert await client.process_list() == {}
        assert await client.instance_list() == {}
        assert {"imrpc.InstanceService", "imrpc.ProxyEngineService", *DISKS} <= await listed(channel)
        with pytest.raises(grpc.aio.AioRpcError, match="missing address"):
            await call(channel, PROXY_METHOD)


async def test_managers_are_told_what_is_served(daemon: Daemon) -> None:
    async with daemon.client() as client:
        version = await client.version()
    assert (version.instanceManagerAPIVersion, version.instanceManagerAPIMinVersion) == (7, 1)
    told = (version.instanceManagerProxyAPIVersion, version.instanceManagerProxyAPIMinVersion)
    assert told == (7, 1)


async def test_an_address_without_a_host_is_every_address(tmp_path: Path, four: int) -> None:
    async with running_daemon(tmp_path, "--listen", f":{four}", "--insecure") as daemon:
        assert len(targets(daemon)) == 4
        for port in range(four, four + 4):
            for host in ("127.0.0.1", "127.0.0.9", *(["[::1]"] if socket.has_ipv6 else [])):
                async with Client(f"tcp://{host}:{port}") as client:
                    assert await client.health() == "SERVING"


@pytest.mark.parametrize("security", ["plain", "tls"])
async def test_a_connection_that_says_nothing_leaves_no_line_in_the_log(
    tmp_path: Path, security: str
) -> None:
    """As liveness probes make them, one a second."""
    options: tuple[str, ...] = ("--listen", "127.0.0.1:0")
    tls = AUTHORITY.signed() if security == "tls" else None
    if tls:
        options += ("--tls-dir", str(fill(tmp_path / "tls", tls)))
    async with running_daemon(tmp_path, *options) as daemon:
        for target in targets(daemon):
            host, _, port = target.rpartition(":")
            for _ in range(5):
                _, writer = await asyncio.open_connection(host, int(port))
                writer.close()
                await writer.wait_closed()
            async with Client(f"tcp://{target}", tls) as client:
                assert await client.health() == "SERVING"
        await daemon.stop()
    events = [line["event"] for line in daemon.lines]
    assert events[events.index("serving") + 1 :] == ["signal received", "shutting down", "stopped"]


async def test_an_instance_outside_of_a_new_range_keeps_its_ports(tmp_path: Path) -> None:
    first = port_span()[0]
    before, after = (f"{start}-{start + 9}" for start in (first, first + 10))
    old = Daemon(tmp_path, "--on-stop", "leave", "--port-range", before)
    try:
        await old.start()
        async with old.client() as client, Watch(client) as watch:
            kept = await client.process_create(stub("kept", ports=3))
            await watch.state("kept", "running")
        assert await old.stop() == 0
        new = Daemon(tmp_path, "--port-range", after)
        new.marker = old.marker
        try:
            await new.start()
            async with new.client() as client, Watch(client) as watch:
                found = await client.process_get("kept")
                assert found.status.state == "running"
                assert (found.status.port_start, found.status.port_end) == (
                    kept.status.port_start,
                    kept.status.port_end,
                )
                given = [
                    (await client.process_create(sleeper(f"p{each}", port_count=1))).status.port_start
                    for each in range(10)
                ]
                assert given == list(range(first + 10, first + 20))
                await client.process_delete("kept", found.status.uuid)
                await watch.state("kept", "deleted")
        finally:
            assert await new.clean_up() == []
    finally:
        await old.clean_up()


def without_ipv4() -> str:
    """Return why there can be no network namespace with IPv6 only, empty if there can be one."""
    if not shutil.which("unshare") or not shutil.which("ip") or not shutil.which("nsenter"):
        return "no unshare, nsenter or ip on this machine"
    if subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode != 0:
        return "needs the right to make a network namespace"
    if not Path("/proc/net/if_inet6").exists():
        return "this machine has no IPv6"
    return ""


async def test_a_host_with_ipv6_only_is_served_on_each_port(tmp_path: Path) -> None:
    if why := without_ipv4():
        pytest.skip(why)
    daemon = Daemon(tmp_path, "--listen", ":8500", "--insecure")
    daemon.prefix = ("unshare", "--net", "sh", "-c", IPV6_ONLY, "sh", str(BIN))
    daemon.metrics = []
    try:
        await daemon.start()
        for port in range(8500, 8504):
            asking = await asyncio.create_subprocess_exec(
                *("nsenter", "--net", "--target", str(daemon.pid)),
                *(str(BIN), "--url", f"tcp://[::1]:{port}", "health"),
                stdout=asyncio.subprocess.PIPE,
            )
            async with asyncio.timeout(patience(30)):
                out, _ = await asking.communicate()
            assert (asking.returncode, out) == (0, b"SERVING\n"), port
    finally:
        assert await daemon.clean_up() == []
