"""The orphan agent: carries out the reconciler's actions, and feeds it events and results."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress

import structlog

from instance_manager.orphans import actions, events, results
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
CHECK_REPORTED_EVERY = 5.0
"""Least seconds between two reports of a successful check."""
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
        self._check_reported = -CHECK_REPORTED_EVERY
        """When the last check was written into the records."""

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
        now = self._clock.now()
        due = self._check_reported + CHECK_REPORTED_EVERY
        if self.reconciler.is_complete and now >= due:
            with suppress(CannotReadError):
                await self._records.report_check(now)
                self._check_reported = now
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
            await self._retry_after(events.OwnersLost(reason))

    async def _watch_manager(self, manager: InstanceManager) -> None:
        while not self.reconciler.caches.managers[manager.name].left:
            reason = await self._watch(manager.watch)
            await self._retry_after(events.InstanceManagerLost(manager.name, reason))

    async def _watch(self, watch: Callable[[], AsyncGenerator[events.Event, None]]) -> str:
        """Pass on the events of a watch; return why it has ended."""
        try:
            async with aclosing(watch()) as stream:
                async for event in stream:
                    self._on_event(event)
                    if isinstance(event, events.InstanceManagerLeaving):
                        log.info("instance manager is leaving", manager=event.manager)
        except CannotReadError as error:
            return str(error)
        except Exception as error:
            # A back end may raise anything, and no error means that there is nothing.
            log.exception("watch failed")
            return repr(error)
        return "the watch has ended"

    def _on_event(self, event: events.Event) -> None:
        self.reconciler.on_event(event, self._clock.now())
        self._wakeup.set()

    async def _retry_after(self, event: events.OwnersLost | events.InstanceManagerLost) -> None:
        self._on_event(event)
        await self._wait(asyncio.Event(), self._settings.retry)

    # --- actions ---

    async def _carry_out(self, action: actions.Action) -> None:
        handed_out = self._clock.now()
        async with self._slots[_back_end(action)]:
            if isinstance(action, actions.DeleteInstance) and self._clock.now() - handed_out > _FRESH:
                reason = f"waited over {_FRESH:g} s for other deletes; checking again first"
                result: results.Result = results.ActionFailed(action, reason)
            else:
                result = await self._result_of(action)
        self.reconciler.on_result(result, self._clock.now())
        self._log(result)
        self._wakeup.set()

    async def _result_of(self, action: actions.Action) -> results.Result:
        try:
            async with asyncio.timeout(self._read_timeout):
                return await self._perform(action)
        except (CannotReadError, CannotDeleteError) as error:
            return results.ActionFailed(action, str(error))
        except TimeoutError:
            return results.ActionFailed(action, f"no answer within {self._read_timeout:g} s")
        except Exception as error:
            log.exception("action failed", action=type(action).__name__)
            return results.ActionFailed(action, repr(error))

    async def _perform(self, action: actions.Action) -> results.Result:
        match action:
            case actions.ListRecords():
                return results.RecordsRead(action, await self._records.list())
            case actions.ListOwners() | actions.ConfirmNoOwner():
                return results.OwnersRead(action, await self._owners.list_live())
            case actions.ListInstances(manager):
                return results.InstancesRead(action, await self._managers[manager].list_live())
            case actions.ReadOwner(_, seen):
                return results.OwnerRead(action, await self._owners.get_live(OwnerKind(seen.kind), seen.name))
            case actions.ReadInstance(_, seen, verification):
                return results.InstanceRead(action, await self._managers[verification.manager].get_live(seen))
            case actions.WriteRecord(record, declares):
                await (self._records.create(record) if declares else self._records.update(record))
                return results.RecordWritten(action)
            case actions.CloseRecord(record):
                return results.RecordWritten(actions.CloseRecord(await self._records.remove(record)))
            case actions.DeleteInstance(record):
                log.warning("deleting an orphan", **_facts(action))
                found = await self._managers[record.manager].delete(record.instance)
                return results.InstanceDeleted(action, found)

    def _log(self, result: results.Result) -> None:
        """Log and count what was done about orphans."""
        match result:
            case results.ActionFailed(actions.WriteRecord(record) | actions.CloseRecord(record), reason):
                self.counts["records_failed"] += 1
                log.error("record not written", record=record.name, reason=reason)
            case results.RecordWritten(actions.WriteRecord(record, declares=True)):
                self.counts["declared"] += 1
                log.warning("orphan", **_identity(record), manager=record.manager, reason=record.reason)
            case results.RecordWritten(actions.CloseRecord(record)):
                self.counts[f"ended_{record.resolution}"] += 1
                outcome = record.outcome
                log.info("orphan record ended", **_identity(record), fate=record.resolution, outcome=outcome)
            case results.ActionFailed(actions.DeleteInstance() as action, reason):
                self.counts["deletes_failed"] += 1
                log.error("orphan not deleted, trying again", **_facts(action), failure=reason)
            case results.InstanceDeleted(action, found=True):
                self.counts["deletes"] += 1
                log.warning("orphan deleted", **_facts(action))
            case results.InstanceDeleted(action):
                log.info("orphan was gone when it was to be deleted", **_facts(action))
            case _:
                pass

    def status(self) -> AgentStatus:
        """Return the present status of the agent."""
        return status_of(self.reconciler)


def _identity(record: Orphan) -> dict[str, str]:
    return {"record": record.name, "name": record.instance.name, "uuid": record.instance.uuid}


def _facts(action: actions.DeleteInstance) -> dict[str, str]:
    who = {"manager": action.record.manager, "by": action.requester, "reason": action.reason}
    return {**_identity(action.record), **who}


def _back_end(action: actions.Action) -> str:
    """Return what an action is carried out on: owners, records, or an instance manager."""
    match action:
        case actions.ListOwners() | actions.ConfirmNoOwner() | actions.ReadOwner():
            return "owners"
        case actions.ListRecords() | actions.WriteRecord() | actions.CloseRecord():
            return "records"
        case actions.DeleteInstance(record):
            # Not behind reads: its own are to be as fresh as can be.
            return f"deletes on {record.manager}"
        case actions.ListInstances(manager):
            return f"instance manager {manager}"
        case actions.ReadInstance(_, _, verification):
            return f"instance manager {verification.manager}"
