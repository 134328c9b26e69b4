"""Requests that nobody should send harm nobody."""

import random
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import message_factory

from instance_manager.client import Client
from instance_manager.pb.imrpc import imrpc_pb2 as pb
from instance_manager.pb.imrpc import instance_pb2
from instance_manager.pb.instance_manager.v1 import events_pb2
from tests.support.daemon import Daemon
from tests.support.patience import patience

Sized = Callable[[int, int], int]
METHODS = {
    f"{service.full_name}/{method.name}": method
    for service in (
        pb.DESCRIPTOR.services_by_name["ProcessManagerService"],
        instance_pb2.DESCRIPTOR.services_by_name["InstanceService"],
        events_pb2.DESCRIPTOR.services_by_name["EventService"],
    )
    for method in service.methods
}
PROCESS = "ProcessManagerService/Process"
INSTANCE = "imrpc.InstanceService/Instance"
EMPTY_IS_FINE = {
    f"{PROCESS}List",
    "ProcessManagerService/VersionGet",
    f"{INSTANCE}List",
    "imrpc.InstanceService/VersionGet",
    "imrpc.InstanceService/LogGetLevel",
    "imrpc.InstanceService/LogGetFlags",
    "imrpc.InstanceService/LogSetFlags",
    "instance_manager.v1.EventService/History",
}
"""The empty message is a whole one: nothing has to be said, or what is left out means v1 or all."""
ONLY_V2 = {f"{INSTANCE}{name}" for name in ("Suspend", "Resume", "SwitchOverTarget", "DeleteTarget")}
ENDLESS = {f"{PROCESS}Watch", f"{INSTANCE}Watch", "instance_manager.v1.EventService/Watch"}

NAMES = ["", "../../tmp/x", "/etc/passwd", "a/b", "a\0b", "A", "-a", "a" * 252, "ä", "a..b", ".", " ", "a\n"]
SPECS = [
    pb.ProcessSpec(),
    pb.ProcessSpec(name="a"),
    pb.ProcessSpec(binary="/bin/true"),
    pb.ProcessSpec(name="a", binary="/bin/true", port_count=-1),
    pb.ProcessSpec(name="a", binary="/bin/true", port_count=2**31 - 1),
    pb.ProcessSpec(name="a", binary="/bin/true", port_args=["--listen,"]),
    pb.ProcessSpec(name="a", binary="/bin/\0true"),
    pb.ProcessSpec(name="a", binary="/bin/true", args=["\0"]),
    *(pb.ProcessSpec(name=name, binary="/bin/true") for name in NAMES),
]


def foolish_requests() -> dict[str, list[bytes]]:
    """Well-formed messages that make no sense, by method."""
    named = [pb.ProcessGetRequest(name=name).SerializeToString() for name in NAMES]
    created = [pb.ProcessCreateRequest(spec=spec).SerializeToString() for spec in SPECS]
    replaced = [
        pb.ProcessReplaceRequest(spec=spec, terminate_signal="SIGHUP").SerializeToString() for spec in SPECS
    ]
    instances = [instance_pb2.InstanceSpec(), *map(instance, SPECS)]
    v2 = [instance_pb2.InstanceSpec(name="a", type="replica", data_engine=engine) for engine in (7, -1)]  # type: ignore[arg-type]
    instance_created = [
        instance_pb2.InstanceCreateRequest(spec=spec).SerializeToString() for spec in (*instances, *v2)
    ]
    instance_replaced = [
        instance_pb2.InstanceReplaceRequest(spec=spec, terminate_signal="SIGHUP").SerializeToString()
        for spec in (*instances, *v2)
    ]
    instance_named = [instance_pb2.InstanceGetRequest(name=name).SerializeToString() for name in NAMES]
    return {
        f"{PROCESS}Create": [b"", *created],
        f"{PROCESS}Replace": [b"", *replaced],
        f"{PROCESS}Get": named,
        f"{PROCESS}Delete": named,
        f"{PROCESS}Log": named,
        f"{INSTANCE}Create": [b"", *instance_created],
        f"{INSTANCE}Replace": [b"", *instance_replaced],
        f"{INSTANCE}Get": instance_named,
        f"{INSTANCE}Delete": instance_named,
        f"{INSTANCE}Log": instance_named,
        "imrpc.InstanceService/LogSetLevel": [b"", b"\x12\x04loud"],
    }


def instance(spec: pb.ProcessSpec) -> instance_pb2.InstanceSpec:
    """Return the spec of an instance that is this process."""
    return instance_pb2.InstanceSpec(
        name=spec.name,
        type="replica",
        port_count=spec.port_count,
        port_args=spec.port_args,
        process_instance_spec=instance_pb2.ProcessInstanceSpec(binary=spec.binary, args=spec.args),
    )


def malformed(method: str, randomness: random.Random) -> bytes:
    """Return bytes that are no message of the method's kind."""
    kind: Any = message_factory.GetMessageClass(METHODS[method].input_type)
    while True:
        noise = randomness.randbytes(randomness.randint(1, 200))
        try:
            kind.FromString(noise)
        except Exception:  # noqa: BLE001 - whatever the parser says, it is no message
            return noise


async def answer(client: Client, method: str, request: bytes) -> grpc.StatusCode:
    path = f"/{method}"
    call: Any
    try:
        if METHODS[method].server_streaming:
            call = client._channel.unary_stream(path)
            await call(request, timeout=patience(10)).read()
        else:
            call = client._channel.unary_unary(path)
            await call(request, timeout=patience(10))
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@pytest.mark.parametrize("method", sorted(foolish_requests()))
async def test_a_request_that_makes_no_sense_is_an_invalid_argument(daemon: Daemon, method: str) -> None:
    async with daemon.client() as client:
        for request in foolish_requests()[method]:
            code = await answer(client, method, request)
            assert code is grpc.StatusCode.INVALID_ARGUMENT, request
        assert await client.process_list() == {}
    assert not list(daemon.logs.iterdir())


@pytest.mark.timeout(600)
async def test_noise_is_an_invalid_argument_for_every_method_and_the_daemon_goes_on(
    daemon: Daemon, sized: Sized
) -> None:
    randomness = random.Random(20261123)
    methods = sorted(METHODS)
    before = set(daemon.folder.rglob("*"))
    async with daemon.client() as client:
        for number in range(sized(400, 10_000)):
            method = methods[number % len(methods)]
            noise = malformed(method, randomness)
            assert await answer(client, method, noise) is grpc.StatusCode.INVALID_ARGUMENT, (method, noise)
        assert await client.health() == "SERVING"
        assert await client.process_list() == {}
    assert set(daemon.folder.rglob("*")) == before


def test_for_every_method_it_is_said_what_the_empty_message_means() -> None:
    assert set(METHODS) == {*foolish_requests(), *EMPTY_IS_FINE, *ONLY_V2, *ENDLESS}


@pytest.mark.parametrize("method", sorted(ONLY_V2))
async def test_what_v1_cannot_do_is_unimplemented_whatever_is_said(daemon: Daemon, method: str) -> None:
    async with daemon.client() as client:
        assert await answer(client, method, b"") is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("method", sorted(EMPTY_IS_FINE))
async def test_a_method_without_arguments_takes_the_empty_message(daemon: Daemon, method: str) -> None:
    async with daemon.client() as client:
        assert await answer(client, method, b"") is grpc.StatusCode.OK


async def test_an_unknown_process_is_not_found_by_every_method_that_takes_a_name(daemon: Daemon) -> None:
    request = pb.ProcessGetRequest(name="nobody").SerializeToString()
    replace = pb.ProcessReplaceRequest(
        spec=pb.ProcessSpec(name="nobody", binary="/bin/true"), terminate_signal="SIGHUP"
    )
    async with daemon.client() as client:
        for method in ("Get", "Delete", "Log"):
            assert await answer(client, f"{PROCESS}{method}", request) is grpc.StatusCode.NOT_FOUND
            wanted = instance_pb2.InstanceGetRequest(name="nobody").SerializeToString()
            assert await answer(client, f"{INSTANCE}{method}", wanted) is grpc.StatusCode.NOT_FOUND
        code = await answer(client, f"{PROCESS}Replace", replace.SerializeToString())
        assert code is grpc.StatusCode.NOT_FOUND
