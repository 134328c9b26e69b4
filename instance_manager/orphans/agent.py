"""The orphan agent: carries out the reconciler's actions, and feeds it events and results."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress

import structlog

from instance_manager.orphans.actions import (
    Action,
    ActionFailed,
    CloseRecord,
    ConfirmNoOwner,
    DeleteInstance,
    Event,
    InstanceDeleted,
    InstanceEvent,
    InstanceManagerLeaving,
    InstanceManagerLost,
    InstanceRead,
    InstancesRead,
    ListInstances,
    ListOwners,
    ListRecords,
    OwnerEvent,
    OwnerRead,
    OwnersLost,
    OwnersRead,
    ReadInstance,
    ReadOwner,
    RecordsRead,
    RecordWritten,
    Result,
    WriteRecord,
)
from instance_manager.orphans.interfaces import (
    CannotDeleteError,
    CannotReadError,
    InstanceManager,
    Owners,
    Records,
)
from instance_manager.orphans.model import Orphan, OwnerKind
from instance_manager.orphans.reconciler import Reconciler
from instance_manager.orphans.settings import OrphanSettings
from instance_manager.orphans.status import AgentStatus, ConditionLog, status_of
from instance_manager.platform.clock import Clock

log = structlog.get_logger(__name__)

READ_TIMEOUT = 30.0
"""Seconds after which a back end that has not answered counts as unreachable."""
_CONCURRENCY = 16
"""Largest number of concurrent actions on each back end."""
_FRESH = 5.0
"""Seconds after which the reads before a delete are too old for the delete to be sent."""


class OrphanAgent:
    """Looks for orphans on one or several instance managers until it is cancelled."""

    def __init__(
        self,
        settings: OrphanSettings,
        *,
        owners: Owners,
        records: Records,
        managers: Sequence[InstanceManager],
        clock: Clock,
        read_timeout: float = READ_TIMEOUT,
    ) -> None:
        self.reconciler = Reconciler(settings, [manager.name for manager in managers])
        self.counts: Counter[str] = Counter()
        """What was done: `declared`, `deletes`, `deletes_failed`, `records_failed`, `ended_RESOLUTION`."""
        self._settings = settings
        self._owners = owners
        self._records = records
        self._managers = {manager.name: manager for manager in managers}
        self._clock = clock
        self._read_timeout = read_timeout
        self._wakeup = asyncio.Event()
        # A slow back end must not hold up the others.
        self._slots: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(_CONCURRENCY))
        self._conditions = ConditionLog()
        self._reported: dict[str, str] | None = None
        """The conditions in the records."""

    async def run(self) -> None:
        """Watch everything and act on it, until cancelled."""
        self.reconciler.start(self._clock.now())
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_owners())
            for manager in self._managers.values():
                group.create_task(self._watch_manager(manager))
            while True:
                self._wakeup.clear()
                for action in self.reconciler.next_actions(self._clock.now()):
                    group.create_task(self._carry_out(action))
                self._conditions.update(self.status())
                await self._report_conditions()
                await self._until_due()

    async def _report_conditions(self) -> None:
        conditions = self._conditions.current
        if conditions != self._reported:
            with suppress(CannotReadError):  # reported again the next time
                await self._records.report_conditions(conditions)
                self._reported = conditions

    async def _until_due(self) -> None:
        due = self.reconciler.next_due()
        if due == float("inf"):
            await self._wakeup.wait()
        else:
            await self._wait(self._wakeup, max(0.0, due - self._clock.now()))

    async def _wait(self, event: asyncio.Event, seconds: float) -> None:
        """Wait for an event, which is set after some seconds at the latest."""
        timer = self._clock.call_later(seconds, event.set)
        try:
            await event.wait()
        finally:
            timer.cancel()

    # --- events ---

    async def _watch_owners(self) -> None:
        while True:
            reason = await self._watch(self._owners.watch)
            await self._retry_after(OwnersLost(reason))

    async def _watch_manager(self, manager: InstanceManager) -> None:
        while not self.reconciler.caches.managers[manager.name].left:
            reason = await self._watch(manager.watch)
            await self._retry_after(InstanceManagerLost(manager.name, reason))

    async def _watch(self, watch: Callable[[], AsyncGenerator[OwnerEvent | InstanceEvent, None]]) -> str:
        """Pass on the events of a watch; return why it has ended."""
        try:
            async with aclosing(watch()) as events:
                async for event in events:
                    self._pass_on(event)
                    if isinstance(event, InstanceManagerLeaving):
                        log.info("instance manager is leaving", manager=event.manager)
        except CannotReadError as error:
            return str(error)
        except Exception as error:
            # A back end may raise anything, and no error means that there is nothing.
            log.exception("watch failed")
            return repr(error)
        return "the watch has ended"

    def _pass_on(self, event: Event) -> None:
        self.reconciler.on_event(event, self._clock.now())
        self._wakeup.set()

    async def _retry_after(self, event: OwnersLost | InstanceManagerLost) -> None:
        self._pass_on(event)
        await self._wait(asyncio.Event(), self._settings.retry)

    # --- actions ---

    async def _carry_out(self, action: Action) -> None:
        handed_out = self._clock.now()
        async with self._slots[_back_end(action)]:
            if isinstance(action, DeleteInstance) and self._clock.now() - handed_out > _FRESH:
                reason = f"waited over {_FRESH:g} s for other deletes; checking again first"
                result: Result = ActionFailed(action, reason)
            else:
                result = await self._result_of(action)
        self.reconciler.on_result(result, self._clock.now())
        self._log(result)
        self._wakeup.set()

    async def _result_of(self, action: Action) -> Result:
        try:
            async with asyncio.timeout(self._read_timeout):
                return await self._perform(action)
        except (CannotReadError, CannotDeleteError) as error:
            return ActionFailed(action, str(error))
        except TimeoutError:
            return ActionFailed(action, f"no answer within {self._read_timeout:g} s")
        except Exception as error:
            log.exception("action failed", action=type(action).__name__)
            return ActionFailed(action, repr(error))

    async def _perform(self, action: Action) -> Result:
        match action:
            case ListRecords():
                return RecordsRead(action, await self._records.list())
            case ListOwners() | ConfirmNoOwner():
                return OwnersRead(action, await self._owners.list_live())
            case ListInstances(manager):
                return InstancesRead(action, await self._managers[manager].list_live())
            case ReadOwner(_, seen):
                return OwnerRead(action, await self._owners.get_live(OwnerKind(seen.kind), seen.name))
            case ReadInstance(_, seen, verification):
                return InstanceRead(action, await self._managers[verification.manager].get_live(seen))
            case WriteRecord(record, declares):
                await (self._records.create(record) if declares else self._records.update(record))
                return RecordWritten(action)
            case CloseRecord(record):
                await self._records.remove(record)
                return RecordWritten(action)
            case DeleteInstance(record):
                log.warning("deleting an orphan", **_facts(action))
                found = await self._managers[record.manager].delete(record.instance)
                return InstanceDeleted(action, found)

    def _log(self, result: Result) -> None:
        """Log and count what was done about orphans."""
        match result:
            case ActionFailed(WriteRecord(record) | CloseRecord(record), reason):
                self.counts["records_failed"] += 1
                log.error("record not written", record=record.name, reason=reason)
            case RecordWritten(WriteRecord(record, declares=True)):
                self.counts["declared"] += 1
                log.warning("orphan", **_identity(record), manager=record.manager, reason=record.reason)
            case RecordWritten(CloseRecord(record)):
                self.counts[f"ended_{record.resolution}"] += 1
                outcome = record.outcome
                log.info("orphan record ended", **_identity(record), fate=record.resolution, outcome=outcome)
            case ActionFailed(DeleteInstance() as action, reason):
                self.counts["deletes_failed"] += 1
                log.error("orphan not deleted, trying again", **_facts(action), failure=reason)
            case InstanceDeleted(action, found=True):
                self.counts["deletes"] += 1
                log.warning("orphan deleted", **_facts(action))
            case InstanceDeleted(action):
                log.info("orphan was gone when it was to be deleted", **_facts(action))
            case _:
                pass

    def status(self) -> AgentStatus:
        """Return the present status of the agent."""
        return status_of(self.reconciler)


def _identity(record: Orphan) -> dict[str, str]:
    return {"record": record.name, "name": record.instance.name, "uuid": record.instance.uuid}


def _facts(action: DeleteInstance) -> dict[str, str]:
    record = action.record
    return {
        "name": record.instance.name,
        "uuid": record.instance.uuid,
        "manager": record.manager,
        "by": action.requester,
        "reason": action.reason,
    }


def _back_end(action: Action) -> str:
    """Return what an action is carried out on: owners, records, or an instance manager."""
    match action:
        case ListOwners() | ConfirmNoOwner() | ReadOwner():
            return "owners"
        case ListRecords() | WriteRecord() | CloseRecord():
            return "records"
        case DeleteInstance(record):
            # Not behind reads: its own are to be as fresh as can be.
            return f"deletes on {record.manager}"
        case ListInstances(manager):
            return f"instance manager {manager}"
        case ReadInstance(_, _, verification):
            return f"instance manager {verification.manager}"
