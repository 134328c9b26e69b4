"""What every call goes through before its method, whatever the service; a refused call is recorded too."""

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import grpc.aio
import pytest
from structlog.testing import capture_logs

from instance_manager.adapters.metrics import RpcMetrics
from instance_manager.adapters.metrics.rpc_metrics import MethodMetrics
from instance_manager.api.interceptors import InterceptorChain, request_budget
from instance_manager.api.listeners import Listener, Offset
from instance_manager.api.server import GrpcServer
from instance_manager.api.service import Service, rpc
from instance_manager.app.audit import AuditTrail
from instance_manager.core.addresses import parse_address
from instance_manager.pb.imrpc import imrpc_pb2 as pb
from tests.support.patience import patience
from tests.support.small_service import SmallService


@dataclass
class Context:
    """What gRPC says about a call, as far as it is asked."""

    request: bytes = b""
    status: list[Any] = field(default_factory=lambda: [None, ""])

    async def read(self) -> bytes:
        return self.request

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def auth_context(self) -> dict[str, Any]:
        return {}

    def set_details(self, details: str) -> None:
        self.status[1] = details

    def code(self) -> Any:
        return self.status[0]

    def details(self) -> str:
        return str(self.status[1])

    def add_done_callback(self, callback: Any) -> None:
        callback(self)  # sent at once

    async def write(self, _: bytes) -> None:
        """Send nothing."""

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        self.status[:] = code, details
        raise grpc.aio.AbortError


@dataclass(frozen=True)
class Details:
    """Of a call, as gRPC asks for its handler."""

    method: str
    invocation_metadata: Any = ()


class Metrics(RpcMetrics):
    """The metrics, to be read by the name of a method."""

    def __init__(self) -> None:
        super().__init__()
        self.by_name: dict[str, MethodMetrics] = {}

    def method(self, service: str, method: str, *, streaming: bool) -> MethodMetrics:
        self.by_name[method] = super().method(service, method, streaming=streaming)
        return self.by_name[method]


class Chain:
    """The small service behind the interceptors."""

    def __init__(self, **options: Any) -> None:
        self.trail, self.metrics, self.service = AuditTrail(lambda: 1.0), Metrics(), SmallService()
        self.interceptors = InterceptorChain(self.trail, self.metrics, **options)
        self.interceptors.add(self.service)
        self.server = self.interceptors.of([self.service])

    async def handler(self, method: str) -> Any:
        async def unknown(_: Any) -> None:
            return None

        return await self.server.intercept_service(unknown, Details(f"/tests.Small/{method}"))  # type: ignore[arg-type]

    async def rename(self, size: int = 0) -> None:
        request = pb.ProcessDeleteRequest(name="a").SerializeToString()
        # A field that is not known.
        padding = b"\xfa\x7f" + _varint(size) + b"\0" * size if size else b""
        await (await self.handler("Rename")).stream_unary(None, Context(request + padding))


def _varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])


async def test_a_stream_that_is_refused_is_counted_with_its_code() -> None:
    chain = Chain(max_streams=1)
    follow = (await chain.handler("Follow")).stream_stream
    first = asyncio.create_task(follow(None, Context()))
    await asyncio.sleep(0)
    with pytest.raises(grpc.aio.AbortError):
        await follow(None, Context())
    counted = chain.metrics.by_name["Follow"]
    assert (counted.started, counted.active) == (2, 1)
    assert counted.by_code["RESOURCE_EXHAUSTED"] == 1
    first.cancel()
    await asyncio.wait([first])
    assert (counted.active, counted.by_code["CANCELLED"]) == (0, 1)


async def some_wait(chain: Chain) -> list[asyncio.Task[None]]:
    """Call until one has to wait."""
    calls: list[asyncio.Task[None]] = []
    while not calls or calls[-1].done():
        calls.append(asyncio.create_task(chain.rename()))
        await asyncio.sleep(0)
    return calls


async def test_a_call_for_whose_request_there_is_no_room_is_counted_and_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(request_budget, "MAX_REQUEST_BYTES_HELD", 10_000)
    chain = Chain()
    others = await some_wait(chain)
    with pytest.raises(grpc.aio.AbortError):
        await chain.rename(10_000)
    await asyncio.wait(others)
    assert chain.metrics.by_name["Rename"].by_code == {"OK": len(others), "RESOURCE_EXHAUSTED": 1}
    assert len(chain.service.renamed) == len(others)
    assert [entry.code for entry in chain.trail.entries()].count("RESOURCE_EXHAUSTED") == 1
    assert {entry.name for entry in chain.trail.entries()} == {"a"}


async def test_a_call_given_up_before_its_turn_is_recorded_as_having_done_nothing() -> None:
    chain = Chain()
    *others, last = await some_wait(chain)
    last.cancel()
    await asyncio.wait([*others, last])
    assert len(chain.service.renamed) == len(others)
    entry = chain.trail.entries()[-1]
    assert (entry.code, entry.detail) == ("CANCELLED", "given up before its turn: nothing was done")
    assert chain.metrics.by_name["Rename"].by_code == {"OK": len(others), "CANCELLED": 1}


async def test_the_time_a_call_waits_for_its_turn_counts() -> None:
    chain = Chain()
    look = await chain.handler("Look")
    await look.stream_unary(None, Context())  # so that the next one does not find everything idle
    call = asyncio.create_task(look.stream_unary(None, Context()))
    await asyncio.sleep(0)
    queued = time.perf_counter()
    # What else the loop does while the call is queued.
    while time.perf_counter() - queued < 0.01:
        pass
    await call
    metrics = {sample.name: sample.value for metric in chain.metrics.collect() for sample in metric.samples}
    assert metrics["instance_manager_grpc_handling_seconds_sum"] > 0.01


async def test_a_service_that_is_added_has_metrics_audit_and_error_mapping(tmp_path: Path) -> None:
    trail, metrics = AuditTrail(lambda: 1.0), Metrics()
    server = GrpcServer([Listener(Offset.PROCESS, (SmallService(),))], InterceptorChain(trail, metrics))
    server.bind(parse_address(f"unix://{tmp_path}/s"))
    await server.start()

    async def call(method: str, request: bytes) -> tuple[str, str]:
        unary: Any = channel.unary_unary(f"/tests.Small/{method}")
        try:
            await unary(request, timeout=patience(20))
        except grpc.aio.AioRpcError as error:
            return error.code().name, error.details() or ""
        return "OK", ""

    def named(name: str) -> bytes:
        return pb.ProcessDeleteRequest(name=name, uuid="u-of-request").SerializeToString()

    with capture_logs() as logs:
        async with grpc.aio.insecure_channel(f"unix:{tmp_path}/s") as channel:
            assert await call("Look", named("here")) == ("OK", "")
            assert await call("Look", named("missing")) == ("NOT_FOUND", "nothing has this name")
            # gRPC writes each byte of such a letter as three, and clients accept 8 KiB of headers.
            code, details = await call("Look", named("long"))
            assert (code, details[:13]) == ("NOT_FOUND", "cannot find \u8a9e")
            assert len(quote(details, safe=" ")) <= 6000
            code, details = await call("Look", named("defect"))
            malformed = await call("Rename", b"\xff\xff")
            await call("Rename", named("a"))
    await server.stop(0)

    assert code == "INTERNAL"
    (defect,) = [line for line in logs if line["event"] == "unexpected error in a call"]
    assert defect["error_id"] in details
    assert malformed[0] == "INVALID_ARGUMENT"
    assert "cannot read the request as ProcessDeleteRequest" in malformed[1]
    assert metrics.by_name["Look"].by_code == {"OK": 1, "NOT_FOUND": 2, "INTERNAL": 1}
    assert metrics.by_name["Rename"].by_code == {"OK": 1, "INVALID_ARGUMENT": 1}
    assert [(entry.method, entry.name, entry.uuid, entry.code) for entry in trail.entries()] == [
        ("tests.Small/Rename", "", "", "INVALID_ARGUMENT"),
        ("tests.Small/Rename", "a", "u-of-answer", "OK"),
    ]


def test_a_service_without_one_of_its_methods_is_refused_at_the_start() -> None:
    class Partial(Service):
        descriptor = SmallService.descriptor

        @rpc("Look")
        def look(self, _: pb.ProcessDeleteRequest) -> bytes:
            return b""

    with pytest.raises(TypeError, match=r"tests\.Small has the methods"):
        InterceptorChain(AuditTrail(lambda: 1.0), RpcMetrics()).add(Partial())
