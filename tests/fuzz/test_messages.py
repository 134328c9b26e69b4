"""Whatever message comes to whatever method, the answer has a status that somebody has thought of."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instance_manager.client import Client
from instance_manager.core.errors import InvalidArgumentError
from instance_manager.core.names import validate_name
from tests.fuzz.messages import messages, methods
from tests.support.daemon import Daemon, running_daemon
from tests.support.patience import patience
from tests.support.spdk.process import SpdkProcess

FORESEEN = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNIMPLEMENTED,
    # Of v2 while its service is away, and of engines that nobody is.
    grpc.StatusCode.UNAVAILABLE,
}
INTERNAL_BY_CONTRACT = {"SnapshotBackup", "BackupRestore"}
"""Methods whose clients know INTERNAL for what they have got wrong; a defect would be in the log."""
OF_V2 = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}
"""What the proxy answers to every error of the SPDK service, and the disk service to odd ones."""
TIMEOUT = patience(30.0)
BEGINNING = 0.05
"""Seconds that a stream is read."""


@pytest.fixture(params=[False, True], ids=["v1", "v1 and v2"])
async def fuzzed(tmp_path: Path, spdk: SpdkProcess, request: pytest.FixtureRequest) -> AsyncIterator[Daemon]:
    """A daemon that gives up on processes soon, without v2 or with it."""
    v2 = ("--spdk-enabled", "--spdk-service-address", spdk.address) if request.param else ()
    async with running_daemon(tmp_path, "--stop-timeout", "1", "--ready-timeout", "1", *v2) as daemon:
        yield daemon


async def served(client: Client) -> list[MethodDescriptor]:
    """Return every method that the daemon says it has, those of gRPC's own services aside."""
    channel: Any = client._channel
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    answer = await call.read()
    call.cancel()
    names = [service.name for service in answer.list_services_response.service]
    return methods(name for name in names if not name.startswith("grpc."))


async def code_of(client: Client, method: MethodDescriptor, request: Message) -> grpc.StatusCode:
    """Return how a call ended; a stream that goes on is OK."""
    service = method.containing_service
    assert service is not None
    path = f"/{service.full_name}/{method.name}"
    raw = request.SerializeToString()
    channel: Any = client._channel
    try:
        if method.server_streaming:
            call = channel.unary_stream(path)(raw, timeout=TIMEOUT)
            try:
                async with asyncio.timeout(BEGINNING):
                    while await call.read() is not grpc.aio.EOF:
                        pass
            except TimeoutError:
                call.cancel()
        else:
            await channel.unary_unary(path)(raw, timeout=TIMEOUT)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def outside(daemon: Daemon) -> list[str]:
    """Return the files that the daemon has made where none should be."""
    found = []
    for path in daemon.folder.rglob("*"):
        if daemon.folder / "state" in (path, *path.parents) or path in {
            daemon.logs,
            daemon.folder / "im.sock",
        }:
            continue
        try:
            validate_name(path.name.removesuffix(".log"))
        except InvalidArgumentError:
            found.append(str(path))
        if path.parent != daemon.logs:
            found.append(str(path))
    return found


async def clear(daemon: Daemon, client: Client) -> None:
    """Delete all that is listed and wait until it is gone; nothing may be left that is not listed."""
    async with asyncio.timeout(TIMEOUT):
        while listed := await client.process_list():
            for name in listed:
                await code_of_delete(client, name)
        while daemon.descendants():
            await client.health()


async def code_of_delete(client: Client, name: str) -> None:
    try:
        await client.process_delete(name)
    except grpc.aio.AioRpcError as error:
        assert error.code() is grpc.StatusCode.NOT_FOUND, error  # noqa: PT017 - it may be gone by now


@pytest.mark.timeout(3600)
async def test_every_message_to_every_method_gets_a_status_that_was_foreseen(
    fuzzed: Daemon, full: bool, request: pytest.FixtureRequest
) -> None:
    foreseen = FORESEEN | (OF_V2 if "v2" in request.node.callspec.id else set())
    async with fuzzed.client() as client:
        all_methods = await served(client)
        by_service: dict[str, list[MethodDescriptor]] = {}
        for each in all_methods:
            by_service.setdefault(each.full_name.rpartition(".")[0], []).append(each)
        assert by_service.keys() >= {
            "ProcessManagerService",
            "imrpc.InstanceService",
            "imrpc.ProxyEngineService",
            "imrpc.DiskService",
            "instance_manager.v1.AuditService",
            "instance_manager.v1.EventService",
            "instance_manager.v1.StatusService",
        }
        call = (
            st.sampled_from(list(by_service.values()))
            .flatmap(st.sampled_from)
            .flatmap(lambda method: st.tuples(st.just(method), messages(method.input_type)))
        )
        loop = asyncio.get_running_loop()
        seen: set[grpc.StatusCode] = set()

        @settings(
            max_examples=int(os.environ.get("FUZZ_EXAMPLES", "2000" if full else "60")),
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.lists(call, min_size=1, max_size=8))
        def hold(calls: list[tuple[MethodDescriptor, Message]]) -> None:
            asyncio.run_coroutine_threadsafe(attempt(calls), loop).result(TIMEOUT * 4)

        async def attempt(calls: list[tuple[MethodDescriptor, Message]]) -> None:
            codes = await asyncio.gather(*(code_of(client, method, request) for method, request in calls))
            seen.update(codes)
            for (method, asked), code in zip(calls, codes, strict=True):
                if code is grpc.StatusCode.INTERNAL and method.name in INTERNAL_BY_CONTRACT:
                    continue
                assert code in foreseen, (code, method.full_name, asked)

        await asyncio.to_thread(hold)
        assert seen >= {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT}
        assert not full or grpc.StatusCode.NOT_FOUND in seen
        assert await client.health() == "SERVING"
        assert outside(fuzzed) == []
        await clear(fuzzed, client)
    assert fuzzed.process.returncode is None
    assert [line for line in fuzzed.lines if line.get("level") == "error"] == []
