"""Calls of engines and replicas, and their errors in the words that managers look for."""

from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import structlog
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from instance_manager.adapters.engine.channels import Channels
from instance_manager.adapters.engine.sizes import may_be_large
from instance_manager.core.addresses import Address
from instance_manager.core.engine import Replica
from instance_manager.core.engine_address import engine_address
from instance_manager.core.engine_orders import LONGEST_COPY
from instance_manager.core.errors import InvalidArgumentError, ResourceExhaustedError, UpstreamError
from instance_manager.core.slots import Holder
from instance_manager.platform.caller import CALLER
from instance_manager.platform.turns import GivenUpError, Turns

log = structlog.get_logger(__name__)

VOLUME_KEY, INSTANCE_KEY = "volume-name", "instance-name"
"""Metadata that says who is meant; without it, the other side does not check."""
_READS = ("Get", "List", "Status", "Check")
"""The methods that change nothing end so. Managers poll them, so they are not logged one by one."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Timeouts of calls in seconds."""

    call: float = 180.0
    copy: float = LONGEST_COPY
    """Of a call that returns only when data has been copied, unless its request has another one."""
    optional: float = 5.0
    """Of a call without whose answer there is another one: managers ask every few seconds."""


@dataclass(frozen=True, slots=True)
class Target:
    """Who is called."""

    address: str
    """HOST:PORT, or unix:PATH."""
    volume: str
    instance: str

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What tells the other side who is meant."""
        pairs = ((VOLUME_KEY, self.volume), (INSTANCE_KEY, self.instance))
        return tuple((key, value) for key, value in pairs if value)


MOST_LARGE = 16
"""Largest number of answers that may be large and are received at the same time."""
_MOST_WAITING = 1024
_PATIENCE, _SHORT_PATIENCE = 5.0, 2.0
"""Seconds that one may take to come while others wait, see `core.slots`: it comes at once or not at all."""
_COUNTED = 4 << 10
"""Bytes of an answer that counts: the number of calls bounds those that are smaller."""
_MOST_KNOWN = 4096
MOST_CALLS, MOST_CALLS_OF_CLIENT = 2048, 1024
"""Largest number of calls in progress, each of which takes memory, and of those for one client."""


class Calls:
    """Makes calls."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._under_way: Counter[Holder] = Counter()
        """How many calls are in progress for each client."""
        self._were_large: dict[tuple[str, str], None] = {}
        """Addresses and methods that have had large answers."""
        self._large = Turns(MOST_LARGE, _MOST_WAITING, _PATIENCE, _SHORT_PATIENCE)

    async def call(
        self,
        target: Target,
        method: MethodDescriptor,
        request: Message,
        failure: str,
        within: float,
    ) -> Any:
        """Call a method and return its response.

        Args:
            target: who is called.
            method: what is called there.
            request: of the type that the method takes.
            failure: begins the message of an error.
            within: seconds.

        Raises:
            UpstreamError: with the code of the answer; UNAVAILABLE if nobody is there, RESOURCE_EXHAUSTED if
                too much is asked or answered at once.
        """
        path = f"/{method.containing_service.full_name}/{method.name}"
        if not method.name.endswith(_READS):
            log.debug("engine called", method=path, address=target.address)
        response = GetMessageClass(method.output_type)
        if not target.address:
            raise rpc_error(failure, grpc.StatusCode.UNAVAILABLE, "missing address")
        large = self._takes_large(target, method)
        with self._counted(failure), self._channels.to(target.address, large=large) as channel:
            kind = channel.unary_stream if large else channel.unary_unary
            multicallable: Any = kind(path, request_serializer=type(request).SerializeToString)
            call = multicallable(request, timeout=within, metadata=target.metadata, wait_for_ready=False)
            try:
                answer = await self._received(call, failure) if large else await call
                if len(answer) > _COUNTED:
                    _hold(len(answer), failure)
                # Read here: gRPC would log a traceback and return nothing for an answer that cannot be read.
                return response.FromString(answer)
            except grpc.aio.AioRpcError as error:
                if large or not (may_be_large(method) and _is_too_large(error)):
                    raise rpc_error(failure, error.code(), error.details() or "") from error
            except DecodeError as error:
                text = f"the answer is no {response.DESCRIPTOR.full_name}"
                raise rpc_error(failure, grpc.StatusCode.INTERNAL, text) from error
            finally:
                answer = b""  # an error keeps this frame for a while
        self._note_large(target, method)
        return await self.call(target, method, request, failure, within)

    def _takes_large(self, target: Target, method: MethodDescriptor) -> bool:
        """Return whether to be ready for a large answer, which costs more: reads are tried without first."""
        return may_be_large(method) and (
            not method.name.endswith(_READS) or (target.address, method.full_name) in self._were_large
        )

    def _note_large(self, target: Target, method: MethodDescriptor) -> None:
        """Note that there was a large answer."""
        self._were_large[target.address, method.full_name] = None
        if len(self._were_large) > _MOST_KNOWN:
            del self._were_large[next(iter(self._were_large))]

    @contextmanager
    def _counted(self, failure: str) -> Iterator[None]:
        """Count a call that is in progress."""
        client = CALLER.get().holder
        if self._under_way[client] >= MOST_CALLS_OF_CLIENT or self._under_way.total() >= MOST_CALLS:
            raise UpstreamError(
                "RESOURCE_EXHAUSTED",
                f"{failure}: {self._under_way.total()} calls of engines are in progress, "
                f"{self._under_way[client]} of them for this client, and {MOST_CALLS} and "
                f"{MOST_CALLS_OF_CLIENT} are the most there may be; ask again later",
            )
        self._under_way[client] += 1
        try:
            yield
        finally:
            self._under_way[client] -= 1
            if not self._under_way[client]:
                del self._under_way[client]

    async def _received(self, call: Any, failure: str) -> bytes:
        """Receive an answer that may be large when it is its turn: gRPC keeps what has come of it."""
        try:
            await call.initial_metadata()
            return await self._large.work(CALLER.get().holder, lambda: _whole(call))
        except GivenUpError:
            raise UpstreamError(
                "RESOURCE_EXHAUSTED",
                f"{failure}: the answer did not come at once, and others wait for theirs; ask again later",
            ) from None
        finally:
            call.cancel()

    async def stream(
        self, target: Target, method: MethodDescriptor, request: Message, failure: str
    ) -> AsyncGenerator[bytes]:
        """Call a streaming method and yield its responses, unread, until it ends.

        Raises:
            UpstreamError: as from `call`.
        """
        path = f"/{method.containing_service.full_name}/{method.name}"
        with self._channels.to(target.address) as channel:
            stream: Any = channel.unary_stream(path, request_serializer=type(request).SerializeToString)
            call = stream(request, wait_for_ready=False)
            try:
                async for response in call:
                    yield response
            except grpc.aio.AioRpcError as error:
                raise rpc_error(failure, error.code(), error.details() or "") from error
            finally:
                call.cancel()


def _is_too_large(error: grpc.aio.AioRpcError) -> bool:
    """Return whether gRPC has refused an answer of which it has seen how many bytes are to come."""
    too_large = "larger than max" in (error.details() or "")
    return too_large and error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def _hold(size: int, failure: str) -> None:
    """Count an answer to the call of a client that it is for.

    Raises:
        UpstreamError: if there is no room for it.
    """
    try:
        CALLER.get().hold(size)
    except ResourceExhaustedError as error:
        raise UpstreamError("RESOURCE_EXHAUSTED", f"{failure}: {error}") from None


async def _whole(call: Any) -> bytes:
    """Return the only message of a call.

    Raises:
        grpc.aio.AioRpcError: if it ends otherwise.
    """
    answer = await call.read()
    if answer is not grpc.aio.EOF and await call.read() is grpc.aio.EOF:
        return bytes(answer)
    code, text = grpc.StatusCode.INTERNAL, "it has answered nothing, or more than once"
    raise grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), text)


def replica_target(replica: Replica, offset: int, failure: str) -> Target:
    """Return who is `offset` ports above a replica.

    Raises:
        UpstreamError: if the engine has told of an address that is none.
    """
    return Target(str(replica_address(replica, offset, failure)), replica.volume, replica.name)


def replica_address(replica: Replica, offset: int, failure: str) -> Address:
    """Return the address that is `offset` ports above a replica.

    Raises:
        UpstreamError: if the engine has told of an address that is none.
    """
    try:
        return engine_address(replica.address, offset)
    except InvalidArgumentError as error:
        raise UpstreamError("UNKNOWN", f"{failure}: {error}") from error


def host_port(replica: Replica) -> str:
    """Return the address of a replica without its scheme."""
    return replica.address.removeprefix("tcp://")


def rpc_error(failure: str, code: grpc.StatusCode, details: str) -> UpstreamError:
    """Return the error about a call, in the form of the manager's own language, which it searches."""
    return UpstreamError(code.name, f"{failure}: rpc error: code = {go_name(code)} desc = {details}")


def go_name(code: grpc.StatusCode) -> str:
    """Return a status code as Go spells it: `DeadlineExceeded`, but `Canceled` with one l, and `OK`."""
    match code:
        case grpc.StatusCode.OK:
            return "OK"
        case grpc.StatusCode.CANCELLED:
            return "Canceled"
        case _:
            return code.name.title().replace("_", "")
