"""Use cases of the v2 data engine: the SPDK service holds its instances, and this asks it.

What is added to it: a delete with a UUID hits only the instance that has it, and a list is answered while the
SPDK service is away.
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
"""Seconds a list waits for the SPDK service; the rest of the list waits with it."""
LIST_PATIENCE_IN_TROUBLE = 0.5
"""Seconds it waits while the SPDK service does not answer lists."""
TURN_PATIENCE = 60.0
"""Seconds a create or delete waits for another one of the same name."""

_EVER_KNOWN = frozenset({InstanceType.ENGINE, InstanceType.REPLICA})
"""Types that every SPDK service has."""

Result = TypeVar("Result")


class Spdk(Protocol):
    """The SPDK service. Every method raises `UpstreamError` with the service's own code."""

    async def create(self, spec: SpdkSpec) -> SpdkInstance:
        """Make an instance."""

    async def delete(self, kind: InstanceType, name: str, *, cleanup_required: bool) -> None:
        """Remove an instance, with `cleanup_required` its data too."""

    async def get(self, kind: InstanceType, name: str) -> SpdkInstance:
        """Tell one instance."""

    async def list(self, kind: InstanceType, within: float) -> Sequence[SpdkInstance]:
        """Tell every instance of a type, within so many seconds."""

    async def suspend(self, kind: InstanceType, name: str) -> None:
        """Hold the I/O of an instance back."""

    async def resume(self, kind: InstanceType, name: str) -> None:
        """Let the I/O of an instance go on."""

    async def switch_over(self, request: SwitchOver) -> None:
        """Move an engine frontend to another target."""

    async def delete_target(self, name: str) -> None:
        """Remove the target of an engine and keep the rest of it."""

    async def log_set_level(self, level: str) -> None:
        """Change how much the SPDK service logs."""

    async def log_get_level(self) -> str:
        """Tell how much the SPDK service logs."""

    async def log_set_flags(self, flags: str) -> None:
        """Change which parts of SPDK log in detail."""

    async def log_get_flags(self) -> str:
        """Tell which parts of SPDK log in detail."""


class SpdkInstances:
    """The instances of the v2 data engine."""

    def __init__(self, spdk: Spdk) -> None:
        self._spdk = spdk
        self._known: dict[InstanceType, dict[str, SpdkInstance]] = {kind: {} for kind in InstanceType}
        self._trouble: dict[InstanceType, str] = {}
        self._turns: WeakValueDictionary[tuple[InstanceType, str], asyncio.Lock] = WeakValueDictionary()
        self._under_way: set[asyncio.Task[Any]] = set()
        self._hidden: set[str] = set()

    async def create(self, spec: SpdkSpec) -> SpdkInstance:
        """Make an instance.

        Raises:
            InvalidArgumentError: if the spec lacks something.
            UpstreamError: as the SPDK service says.
        """
        validate_spdk_spec(spec)

        async def remembered_create() -> SpdkInstance:
            instance = await self._spdk.create(spec)
            self._known[instance.type][instance.name] = instance
            return instance

        return await self._in_turn(spec.type, spec.name, remembered_create)

    async def delete(self, kind: InstanceType, name: str, uuid: str, *, cleanup_required: bool) -> None:
        """Remove an instance; with a UUID, only the one that has it.

        An engine or a frontend is left alone without `cleanup_required`, but its identity is confirmed.

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
        """Return every instance by name.

        What the SPDK service does not tell is as it was told last, with the reason in `error_msg`: nothing
        vanishes from the list because the service is away, and a list of v1 instances does not fail for it.
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
        within = LIST_PATIENCE_IN_TROUBLE if kind in self._trouble else LIST_PATIENCE
        try:
            instances = await self._spdk.list(kind, within)
        except UpstreamError as error:
            if error.code == "UNIMPLEMENTED" and kind not in _EVER_KNOWN:
                # An SPDK service older than this type has none of them.
                return ()
            if kind not in self._trouble:
                log.warning("v2 instances are listed as they were known last", type=kind, reason=str(error))
            self._trouble[kind] = str(error)
            return [last_known(instance, str(error)) for instance in self._known[kind].values()]
        if self._trouble.pop(kind, None) is not None:
            log.info("v2 instances are listed as they are again", type=kind)
        self._known[kind] = {instance.name: instance for instance in instances}
        return instances

    async def suspend(self, kind: InstanceType, name: str) -> None:
        """Hold the I/O of an engine or a frontend back.

        Raises:
            InvalidArgumentError: if the type has no I/O of its own.
            UpstreamError: as the SPDK service says.
        """
        _validate(kind, name, SUSPENDABLE, "suspend")
        await self._spdk.suspend(kind, name)

    async def resume(self, kind: InstanceType, name: str) -> None:
        """Let the I/O of an engine or a frontend go on; errors as with `suspend`."""
        _validate(kind, name, SUSPENDABLE, "resume")
        await self._spdk.resume(kind, name)

    async def switch_over(self, kind: InstanceType, request: SwitchOver) -> None:
        """Move a frontend to another target.

        Raises:
            InvalidArgumentError: if it is no frontend, or no target is named.
            UpstreamError: as the SPDK service says.
        """
        _validate(kind, request.name, {InstanceType.ENGINE_FRONTEND}, "switch the target of")
        if not request.target_address:
            raise InvalidArgumentError("cannot switch over to no target: set target_address")
        await self._spdk.switch_over(request)

    async def delete_target(self, kind: InstanceType, name: str) -> None:
        """Remove the target of an engine and keep the rest of it.

        Raises:
            InvalidArgumentError: if it is no engine.
            UpstreamError: as the SPDK service says.
        """
        _validate(kind, name, {InstanceType.ENGINE}, "delete the target of")
        await self._spdk.delete_target(name)

    @property
    def logging(self) -> Spdk:
        """What sets and tells the log level and flags of the SPDK service."""
        return self._spdk

    # --- one after the other ---

    async def _in_turn(
        self, kind: InstanceType, name: str, work: Callable[[], Coroutine[Any, Any, Result]]
    ) -> Result:
        """Let no create come between the reading of an identity and the delete that relies on it.

        A caller that goes away does not end its turn: the SPDK service still works on the request.
        """
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
        self._under_way.add(task)

        def over(done: asyncio.Task[Any]) -> None:
            turn.release()
            self._under_way.discard(done)
            if not done.cancelled():
                # Somebody has to look at the error, also when the caller has gone away.
                done.exception()

        task.add_done_callback(over)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Give up the requests under way whose callers have gone away."""
        for task in tuple(self._under_way):
            task.cancel()
            with suppress(asyncio.CancelledError, InstanceManagerError):
                await task


def _validate(
    kind: InstanceType, name: str, allowed: frozenset[InstanceType] | set[InstanceType], verb: str
) -> None:
    if kind not in allowed:
        raise InvalidArgumentError(
            f"cannot {verb} a {kind}: only {' and '.join(sorted(allowed))} instances can be told to"
        )
    validate_spdk_name(name)
