"""A service of the engine at a port: checks who is meant, and fails, hangs or answers oddly on demand."""

import asyncio
import inspect
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from google.protobuf import empty_pb2, json_format
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

from tests.support.engine.disks import RefusedError

EMPTY = empty_pb2.Empty()
Context = grpc.aio.ServicerContext[Any, Any]
_ANY = "*"


@dataclass
class Faults:
    """What was told to go wrong: by place (`controller` or the name of a replica) and method, `*` for any."""

    failing: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    hanging: set[tuple[str, str]] = field(default_factory=set)
    losing: set[tuple[str, str]] = field(default_factory=set)
    odd: dict[tuple[str, str], bytes] = field(default_factory=dict)
    calls: list[tuple[str, str, dict[str, Any], dict[str, str]]] = field(default_factory=list)
    """Place, method, request and metadata of each call."""
    pending: list[str] = field(default_factory=list)
    """Methods of the calls that hang."""
    _works: set[asyncio.Future[Any]] = field(default_factory=set)

    async def complete(self, work: Awaitable[Any]) -> Any:
        """Return what a work returns; it goes on when the caller has gone, as the real ones do."""
        task = asyncio.ensure_future(work)
        self._works.add(task)
        task.add_done_callback(self._works.discard)
        return await asyncio.shield(task)

    def find(self, told: Any, place: str, method: str) -> Any:
        """Return what was told for a method at a place; None if nothing was."""
        keys = [(where, name) for where in (place, _ANY) for name in (method, _ANY)]
        found = next((key for key in keys if key in told), None)
        return found if found is None or isinstance(told, set) else told[found]

    async def hang(self, method: str) -> None:
        """Never return."""
        self.pending.append(method)
        try:
            await asyncio.Event().wait()
        finally:
            self.pending.remove(method)

    def clear(self) -> None:
        """Let everything work."""
        self.failing.clear()
        self.hanging.clear()
        self.losing.clear()
        self.odd.clear()


@dataclass
class Identity:
    """Who is at an address."""

    place: str
    """Name for orders: `controller`, or that of the replica."""
    kind: str
    volume: str
    instance: str

    def refusal(self, metadata: dict[str, str]) -> str:
        """Return why a call means somebody else; empty if it does not."""
        for key, name, right in (
            ("volume-name", "volume name", self.volume),
            ("instance-name", "instance name", self.instance),
        ):
            told = metadata.get(key, "")
            if told and told != right:
                return f"incorrect {name} {told}; check {self.kind} address"
        return ""


def handler(
    service: ServiceDescriptor, answers: object, identity: Identity, faults: Faults
) -> grpc.GenericRpcHandler:
    """Return the handler of a service whose methods `answers` has under the same names."""

    def unary(name: str) -> Any:
        async def call(request: Any, context: Context) -> Any:
            metadata = {key: str(value) for key, value in context.invocation_metadata() or ()}
            sent = json_format.MessageToDict(request, preserving_proto_field_name=True)
            faults.calls.append((identity.place, name, sent, metadata))
            if faults.find(faults.hanging, identity.place, name):
                await faults.hang(name)
            if failing := faults.find(faults.failing, identity.place, name):
                await context.abort(grpc.StatusCode[failing[0]], failing[1])
            if refusal := identity.refusal(metadata):
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, refusal)
            if (odd := faults.find(faults.odd, identity.place, name)) is not None:
                return odd
            try:
                answer = getattr(answers, name)(request)
                answer = await faults.complete(answer) if inspect.isawaitable(answer) else answer
            except RefusedError as error:
                await context.abort(grpc.StatusCode[error.code], str(error))
            if faults.find(faults.losing, identity.place, name):
                await faults.hang(name)
            return EMPTY if answer is None else answer

        return call

    return grpc.method_handlers_generic_handler(
        service.full_name,
        {
            name: grpc.unary_unary_rpc_method_handler(
                unary(name),
                GetMessageClass(method.input_type).FromString,
                lambda answer: answer if isinstance(answer, bytes) else answer.SerializeToString(),
            )
            for name, method in service.methods_by_name.items()
        },
    )
