"""What every call goes through before its handler: one that is refused or given up there is told too."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import pytest

from instance_manager.adapters.metrics import Calls
from instance_manager.api.entrance import Entrance
from instance_manager.api.process_service import SERVICE
from instance_manager.api.turns import MAX_WAITING_BYTES
from instance_manager.app.audit import AuditTrail
from instance_manager.pb.imrpc import imrpc_pb2 as pb

DELETE = f"/{SERVICE.full_name}/ProcessDelete"
WATCH = f"/{SERVICE.full_name}/ProcessWatch"


@dataclass
class Context:
    """What gRPC tells a handler of a call, as far as it is asked."""

    told: list[Any] = field(default_factory=lambda: [None, ""])

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def auth_context(self) -> dict[str, Any]:
        return {}

    def set_details(self, details: str) -> None:
        self.told[1] = details

    def code(self) -> Any:
        return self.told[0]

    def details(self) -> str:
        return str(self.told[1])

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        self.told[:] = code, details
        raise grpc.aio.AbortError


@dataclass(frozen=True)
class Details:
    """Of a call, as gRPC asks for its handler."""

    method: str
    invocation_metadata: Any = ()


class Service:
    """ProcessManagerService behind an entrance, with deletes that are answered and watches that never end."""

    def __init__(self, **options: Any) -> None:
        self.trail, self.calls, self.deleted = AuditTrail(lambda: 1.0), Calls(), 0
        unary: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(self._delete)
        stream: grpc.RpcMethodHandler[Any, Any] = grpc.unary_stream_rpc_method_handler(self._watch)
        inner = grpc.method_handlers_generic_handler(
            SERVICE.full_name, {"ProcessDelete": unary, "ProcessWatch": stream}
        )
        entrance = Entrance(self.trail, self.calls, **options)
        self._handler = entrance.before({SERVICE.full_name: inner})[SERVICE.full_name]

    async def _delete(self, _: bytes, __: Context) -> bytes:
        self.deleted += 1
        return b""

    async def _watch(self, _: bytes, __: Context) -> None:
        await asyncio.Event().wait()

    def handler(self, path: str) -> Any:
        return self._handler.service(Details(path))  # type: ignore[arg-type]

    async def delete(self, size: int = 0) -> None:
        request = pb.ProcessDeleteRequest(name="a").SerializeToString()
        await self.handler(DELETE).unary_unary(request + b"\0" * size, Context())


async def test_a_stream_that_is_refused_is_counted_with_its_code() -> None:
    service = Service(max_streams=1)
    watch = service.handler(WATCH).unary_stream
    first = asyncio.create_task(watch(b"", Context()))
    await asyncio.sleep(0)
    with pytest.raises(grpc.aio.AbortError):
        await watch(b"", Context())
    counted = service.calls.of(WATCH)
    assert (counted.started, counted.active) == (2, 1)
    assert counted.by_code["RESOURCE_EXHAUSTED"] == 1
    first.cancel()
    await asyncio.wait([first])
    assert (counted.active, counted.by_code["CANCELLED"]) == (0, 1)


async def some_wait(service: Service) -> list[asyncio.Task[None]]:
    """Call until one has to wait: it is done only after a look some milliseconds later."""
    calls: list[asyncio.Task[None]] = []
    while not calls or calls[-1].done():
        calls.append(asyncio.create_task(service.delete()))
        await asyncio.sleep(0)
    return calls


async def test_a_call_for_which_there_is_no_room_to_wait_is_counted_and_written_down() -> None:
    service = Service()
    others = await some_wait(service)
    with pytest.raises(grpc.aio.AbortError):
        await service.delete(MAX_WAITING_BYTES)
    await asyncio.wait(others)
    assert service.calls.of(DELETE).by_code == {"OK": len(others), "RESOURCE_EXHAUSTED": 1}
    assert service.deleted == len(others)
    assert [entry.code for entry in service.trail.entries()].count("RESOURCE_EXHAUSTED") == 1


async def test_of_a_call_that_was_given_up_before_its_turn_it_is_told_that_nothing_was_done() -> None:
    service = Service()
    *others, last = await some_wait(service)
    last.cancel()
    await asyncio.wait([*others, last])
    assert service.deleted == len(others)
    entry = service.trail.entries()[-1]
    assert (entry.code, entry.detail) == ("CANCELLED", "given up before its turn: nothing was done")
    assert service.calls.of(DELETE).by_code == {"OK": len(others), "CANCELLED": 1}


async def test_the_time_a_call_waits_for_its_turn_counts() -> None:
    service = Service()
    for _ in range(100):
        await service.delete()
    told = {sample.name: sample.value for metric in service.calls.collect() for sample in metric.samples}
    # Some had to wait for a look, which comes after 3 ms; a call itself takes some microseconds.
    assert told["instance_manager_grpc_handling_seconds_sum"] > 0.003
