"""Use cases of the v2 data engine, whose instances live in the SPDK service.

This adds two things to the SPDK service: a delete with a UUID hits only the instance with that UUID, and
lists are answered even while the service is away.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar
from weakref import WeakValueDictionary

import structlog

from instance_manager.core.errors import (
    DeadlineExceededError,
    InstanceManagerError,
    InvalidArgumentError,
    ResourceExhaustedError,
    UpstreamError,
)
from instance_manager.core.instance import InstanceType
from instance_manager.core.spdk import (
    LEFT_BY_DELETE,
    SUSPENDABLE,
    SpdkInstance,
    SpdkSpec,
    SwitchOver,
    confirm_identity,
    last_known,
    validate_spdk_name,
    validate_spdk_spec,
)

log = structlog.get_logger(__name__)

LIST_PATIENCE = 5.0
"""Seconds that a list waits for the SPDK service; v1 instances wait with it."""
LIST_PATIENCE_AFTER_ERROR = 0.5
"""Seconds that it waits if the last list was not answered."""
TURN_PATIENCE = 60.0
"""Seconds that a create or delete waits for another one of the same name."""

MOST_IN_PROGRESS = 128
"""Largest number of creates and deletes in progress; those whose callers have gone count, too."""

_EVER_KNOWN = frozenset({InstanceType.ENGINE, InstanceType.REPLICA})
"""Types that every SPDK service has."""

Result = TypeVar("Result")


class Spdk(Protocol):
    """The SPDK service. Every method raises `UpstreamError` with the service's own code."""

    async def create(self, spec: SpdkSpec) -> SpdkInstance:
        """Create an instance."""

    async def delete(self, kind: InstanceType, name: str, *, cleanup_required: bool) -> None:
        """Delete an instance, with `cleanup_required` its data too."""

    async def get(self, kind: InstanceType, name: str) -> SpdkInstance:
        """Return one instance."""

    async def list(self, kind: InstanceType, within: float) -> Sequence[SpdkInstance]:
        """Return all instances of a type; `within` is the timeout in seconds."""

    async def suspend(self, kind: InstanceType, name: str) -> None:
        """Suspend the I/O of an instance."""

    async def resume(self, kind: InstanceType, name: str) -> None:
        """Resume the I/O of an instance."""

    async def switch_over(self, request: SwitchOver) -> None:
        """Switch an engine frontend over to another target."""

    async def delete_target(self, name: str) -> None:
        """Delete the target of an engine, but not the engine."""

    async def log_set_level(self, level: str) -> None:
        """Set the log level of the SPDK service."""

    async def log_get_level(self) -> str:
        """Return the log level of the SPDK service."""

    async def log_set_flags(self, flags: str) -> None:
        """Set which parts of SPDK log in detail, comma-separated."""

    async def log_get_flags(self) -> str:
        """Return which parts of SPDK log in detail, comma-separated."""


class SpdkInstances:
    """The instances of the v2 data engine."""

    def __init__(self, spdk: Spdk) -> None:
        self._spdk = spdk
        self._known: dict[InstanceType, dict[str, SpdkInstance]] = {kind: {} for kind in InstanceType}
        self._last_error: dict[InstanceType, str] = {}
        self._turns: WeakValueDictionary[tuple[InstanceType, str], asyncio.Lock] = WeakValueDictionary()
        self._in_flight: set[asyncio.Task[Any]] = set()
        self._hidden: set[str] = set()

    async def create(self, spec: SpdkSpec) -> SpdkInstance:
        """Create an instance.

        Raises:
            InvalidArgumentError: if the spec is incomplete or wrong.
            UpstreamError: as the SPDK service says.
        """
        validate_spdk_spec(spec)

        async def remembered_create() -> SpdkInstance:
            instance = await self._spdk.create(spec)
            self._known[instance.type][instance.name] = instance
            return instance

        return await self._in_turn(spec.type, spec.name, remembered_create)

    async def delete(self, kind: InstanceType, name: str, uuid: str, *, cleanup_required: bool) -> None:
        """Delete an instance; with a UUID, only the instance with that UUID.

        Without `cleanup_required` an engine or a frontend is left alone, but its UUID is still checked.

        Raises:
            NotFoundError: if the instance of this name has another UUID.
            FailedPreconditionError: if a UUID is given and the instance has none.
            UpstreamError: as the SPDK service says.
        """
        validate_spdk_name(name)

        async def confirmed_delete() -> None:
            if uuid:
                confirm_identity(await self._spdk.get(kind, name), uuid)
            if cleanup_required or kind not in LEFT_BY_DELETE:
                await self._spdk.delete(kind, name, cleanup_required=cleanup_required)
                self._known[kind].pop(name, None)

        await self._in_turn(kind, name, confirmed_delete)

    async def get(self, kind: InstanceType, name: str) -> SpdkInstance:
        """Return one instance as it is now.

        Raises:
            UpstreamError: as the SPDK service says.
        """
        validate_spdk_name(name)
        return await self._spdk.get(kind, name)

    async def list(self) -> dict[str, SpdkInstance]:
        """Return all instances by name.

        Types that the SPDK service does not list now are returned as last known, with the reason in
        `error_msg`: nothing disappears because the service is away, and the list of v1 instances still works.
        """
        answers = await asyncio.gather(*(self._list(kind) for kind in InstanceType))
        instances: dict[str, SpdkInstance] = {}
        hidden: set[str] = set()
        for instance in (each for answer in answers for each in answer):
            if instances.setdefault(instance.name, instance) is not instance:
                hidden.add(f"{instance.type} {instance.name}")
        for name in hidden - self._hidden:
            log.warning("another v2 instance of this name hides it from the list", instance=name)
        self._hidden = hidden
        return instances

    async def _list(self, kind: InstanceType) -> Sequence[SpdkInstance]:
        within = LIST_PATIENCE_AFTER_ERROR if kind in self._last_error else LIST_PATIENCE
        try:
            instances = await self._spdk.list(kind, within)
        except UpstreamError as error:
            if error.code == "UNIMPLEMENTED" and kind not in _EVER_KNOWN:
                # An SPDK service older than this type has none of them.
                return ()
            if kind not in self._last_error:
                log.warning("v2 instances are listed as they were known last", type=kind, reason=str(error))
            self._last_error[kind] = str(error)
            return [last_known(instance, str(error)) for instance in self._known[kind].values()]
        if self._last_error.pop(kind, None) is not None:
            log.info("v2 instances are listed as they are again", type=kind)
        self._known[kind] = {instance.name: instance for instance in instances}
        return instances

    async def suspend(self, kind: InstanceType, name: str) -> None:
        """Suspend the I/O of an engine or a frontend.

        Raises:
            InvalidArgumentError: if the type has no I/O of its own.
            UpstreamError: as the SPDK service says.
        """
        _validate(kind, name, SUSPENDABLE, "suspend")
        await self._spdk.suspend(kind, name)

    async def resume(self, kind: InstanceType, name: str) -> None:
        """Resume the I/O of an engine or a frontend; raises what `suspend` raises."""
        _validate(kind, name, SUSPENDABLE, "resume")
        await self._spdk.resume(kind, name)

    async def switch_over(self, kind: InstanceType, request: SwitchOver) -> None:
        """Switch a frontend over to another target.

        Raises:
            InvalidArgumentError: if it is not a frontend, or no target is given.
            UpstreamError: as the SPDK service says.
        """
        _validate(kind, request.name, {InstanceType.ENGINE_FRONTEND}, "switch the target of")
        if not request.target_address:
            raise InvalidArgumentError("cannot switch over to no target: set target_address")
        await self._spdk.switch_over(request)

    async def delete_target(self, kind: InstanceType, name: str) -> None:
        """Delete the target of an engine, but not the engine.

        Raises:
            InvalidArgumentError: if it is not an engine.
            UpstreamError: as the SPDK service says.
        """
        _validate(kind, name, {InstanceType.ENGINE}, "delete the target of")
        await self._spdk.delete_target(name)

    @property
    def logging(self) -> Spdk:
        """The methods for the log level and flags of the SPDK service."""
        return self._spdk

    # --- one after the other ---

    async def _in_turn(
        self, kind: InstanceType, name: str, work: Callable[[], Coroutine[Any, Any, Result]]
    ) -> Result:
        """Run creates and deletes of one name one at a time, so that none comes between a check and a delete.

        A caller that disconnects does not end its turn, because the SPDK service still works on the request.
        """
        if len(self._in_flight) >= MOST_IN_PROGRESS:
            raise ResourceExhaustedError(
                f"cannot begin with the {kind} {name!r}: the SPDK service is working on {MOST_IN_PROGRESS} "
                "instances and that is the most there may be; if it hangs, restart it, or try again later"
            )
        # The SPDK service names a shard itself, so nobody knows which name its creation takes.
        key = (kind, "" if kind is InstanceType.SHARD else name)
        turn = self._turns.setdefault(key, asyncio.Lock())
        try:
            async with asyncio.timeout(TURN_PATIENCE):
                await turn.acquire()
        except TimeoutError:
            raise DeadlineExceededError(
                f"cannot begin with the {kind} {name!r}: the SPDK service has been working on another "
                f"request for it for {TURN_PATIENCE:g} s; try again later"
            ) from None
        task = asyncio.get_running_loop().create_task(work())
        self._in_flight.add(task)

        def over(done: asyncio.Task[Any]) -> None:
            turn.release()
            self._in_flight.discard(done)
            if not done.cancelled():
                # Mark the error as retrieved, in case the caller is gone.
                done.exception()

        task.add_done_callback(over)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Cancel the requests that are still in progress."""
        for task in tuple(self._in_flight):
            task.cancel()
            with suppress(asyncio.CancelledError, InstanceManagerError):
                await task


def _validate(
    kind: InstanceType, name: str, allowed: frozenset[InstanceType] | set[InstanceType], verb: str
) -> None:
    if kind not in allowed:
        raise InvalidArgumentError(
            f"cannot {verb} a {kind}: only {' and '.join(sorted(allowed))} instances support it"
        )
    validate_spdk_name(name)
