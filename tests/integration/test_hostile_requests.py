"""Requests that nobody should send harm nobody: check 4."""

import random
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import message_factory

from instance_manager.client import Client
from instance_manager.pb.imrpc import imrpc_pb2 as pb
from tests.harness import Daemon

Sized = Callable[[int, int], int]
SERVICE = pb.DESCRIPTOR.services_by_name["ProcessManagerService"]
EMPTY_IS_FINE = {"ProcessList", "ProcessWatch", "VersionGet"}
"""Their requests have no fields, so the empty message is a whole one."""

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
    return {
        "ProcessCreate": [b"", *created],
        "ProcessReplace": [b"", *replaced],
        "ProcessGet": named,
        "ProcessDelete": named,
        "ProcessLog": named,
    }


def malformed(method: str, randomness: random.Random) -> bytes:
    """Return bytes that are no message of the method's kind."""
    kind: Any = message_factory.GetMessageClass(SERVICE.methods_by_name[method].input_type)
    while True:
        noise = randomness.randbytes(randomness.randint(1, 200))
        try:
            kind.FromString(noise)
        except Exception:  # noqa: BLE001 - whatever the parser says, it is no message
            return noise


async def answer(client: Client, method: str, request: bytes) -> grpc.StatusCode:
    path = f"/ProcessManagerService/{method}"
    call: Any
    try:
        if SERVICE.methods_by_name[method].server_streaming:
            call = client._channel.unary_stream(path)
            await call(request, timeout=10).read()
        else:
            call = client._channel.unary_unary(path)
            await call(request, timeout=10)
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
    methods = sorted(SERVICE.methods_by_name)
    before = set(daemon.folder.rglob("*"))
    async with daemon.client() as client:
        for number in range(sized(400, 10_000)):
            method = methods[number % len(methods)]
            noise = malformed(method, randomness)
            assert await answer(client, method, noise) is grpc.StatusCode.INVALID_ARGUMENT, (method, noise)
        assert await client.health() == "SERVING"
        assert await client.process_list() == {}
    assert set(daemon.folder.rglob("*")) == before


@pytest.mark.parametrize("method", sorted(EMPTY_IS_FINE - {"ProcessWatch"}))
async def test_a_method_without_arguments_takes_the_empty_message(daemon: Daemon, method: str) -> None:
    async with daemon.client() as client:
        assert await answer(client, method, b"") is grpc.StatusCode.OK


async def test_an_unknown_process_is_not_found_by_every_method_that_takes_a_name(daemon: Daemon) -> None:
    request = pb.ProcessGetRequest(name="nobody").SerializeToString()
    replace = pb.ProcessReplaceRequest(
        spec=pb.ProcessSpec(name="nobody", binary="/bin/true"), terminate_signal="SIGHUP"
    )
    async with daemon.client() as client:
        for method in ("ProcessGet", "ProcessDelete", "ProcessLog"):
            assert await answer(client, method, request) is grpc.StatusCode.NOT_FOUND
        code = await answer(client, "ProcessReplace", replace.SerializeToString())
        assert code is grpc.StatusCode.NOT_FOUND
