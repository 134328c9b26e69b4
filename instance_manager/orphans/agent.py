"""The orphan agent: carries out what the reconciler decides, and feeds it news and answers."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from typing import TypeVar

import structlog

from instance_manager.orphans.actions import (
    Delete,
    Failed,
    ListInstances,
    ListOwners,
    ListRecords,
    ReadInstance,
    ReadOwner,
    Remove,
    Work,
    Write,
)
from instance_manager.orphans.interfaces import (
    CannotDeleteError,
    CannotReadError,
    InstanceChanged,
    InstanceManagerSource,
    InstanceNews,
    InstancesListed,
    ManagerLeaving,
    OwnerChanged,
    OwnerNews,
    Owners,
    OwnersListed,
    Records,
)
from instance_manager.orphans.reconciler import Reconciler
from instance_manager.orphans.settings import OrphanSettings
from instance_manager.orphans.status import AgentStatus, Complaints, status_of
from instance_manager.platform.clock import Clock

log = structlog.get_logger(__name__)

News = TypeVar("News")

READ_TIMEOUT = 30.0
"""Seconds after which a source that has not answered counts as unreachable."""
_AT_ONCE = 16
"""Largest number of concurrent reads and actions for each source."""
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
        managers: Sequence[InstanceManagerSource],
        clock: Clock,
        read_timeout: float = READ_TIMEOUT,
    ) -> None:
        self.reconciler = Reconciler(settings, [manager.name for manager in managers])
        self.counts: Counter[str] = Counter()
        """What was done: `declared`, `deletes`, `deletes_failed`, `records_failed`, `ended_FATE`."""
        self._settings = settings
        self._owners = owners
        self._records = records
        self._managers = {manager.name: manager for manager in managers}
        self._clock = clock
        self._read_timeout = read_timeout
        self._news = asyncio.Event()
        # A slow source must not hold up the others.
        self._at_once: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(_AT_ONCE))
        self._complaints = Complaints()
        self._told: dict[str, str] | None = None
        """What people were told is wrong."""

    async def run(self) -> None:
        """Follow all sources and act on their news, until cancelled."""
        self.reconciler.start(self._clock.now())
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_owners())
            for manager in self._managers.values():
                group.create_task(self._follow_manager(manager))
            while True:
                self._news.clear()
                for work in self.reconciler.take(self._clock.now()):
                    group.create_task(self._carry_out(work))
                self._complaints.hear(self.status())
                await self._tell_people()
                await self._until_due()

    async def _tell_people(self) -> None:
        troubles = self._complaints.current
        if troubles != self._told:
            with suppress(CannotReadError):  # told again the next time
                await self._records.tell(troubles)
                self._told = troubles

    async def _until_due(self) -> None:
        due = self.reconciler.next_due()
        if due == float("inf"):
            await self._news.wait()
            return
        timer = self._clock.call_later(max(0.0, due - self._clock.now()), self._news.set)
        try:
            await self._news.wait()
        finally:
            timer.cancel()

    # --- news ---

    async def _follow_owners(self) -> None:
        while True:
            reason = await self._follow(self._owners.watch, self._owner_news)
            self.reconciler.owners_lost(reason, self._clock.now())
            await self._pause()

    async def _follow_manager(self, manager: InstanceManagerSource) -> None:
        def take(news: InstanceNews) -> None:
            self._instance_news(manager.name, news)

        while not self.reconciler.views.managers[manager.name].left:
            reason = await self._follow(manager.watch, take)
            self.reconciler.manager_lost(manager.name, reason, self._clock.now())
            await self._pause()

    async def _follow(
        self, watch: Callable[[], AsyncGenerator[News, None]], take: Callable[[News], None]
    ) -> str:
        """Pass on the news of a watch; return why it has ended."""
        try:
            async with aclosing(watch()) as told:
                async for news in told:
                    take(news)
                    self._news.set()
        except CannotReadError as error:
            return str(error)
        except Exception as error:
            # A source may raise anything, and no error means that there is nothing.
            log.exception("watch failed")
            return repr(error)
        return "the watch has ended"

    async def _pause(self) -> None:
        self._news.set()
        over = asyncio.Event()
        timer = self._clock.call_later(self._settings.retry, over.set)
        try:
            await over.wait()
        finally:
            timer.cancel()

    def _owner_news(self, news: OwnerNews) -> None:
        now = self._clock.now()
        match news:
            case OwnersListed():
                self.reconciler.owners_listed(news.owners, now)
            case OwnerChanged():
                self.reconciler.owner_changed(news.name, news.owner, now)

    def _instance_news(self, manager: str, news: InstanceNews) -> None:
        now = self._clock.now()
        match news:
            case InstancesListed():
                self.reconciler.instances_listed(manager, news.instances, now)
            case InstanceChanged():
                self.reconciler.instance_changed(manager, news.name, news.instance, now)
            case ManagerLeaving():
                self.reconciler.manager_left(manager, now)
                log.info("instance manager is leaving", manager=manager)

    # --- work ---

    async def _carry_out(self, work: Work) -> None:
        asked = self._clock.now()
        async with self._at_once[_source(work)]:
            if isinstance(work, Delete) and self._clock.now() - asked > _FRESH:
                answer: object = Failed("others took their time before it: it is looked at again first")
            else:
                answer = await self._answer(work)
        self.reconciler.told(work, answer, self._clock.now())
        self._tell(work, answer)
        self._news.set()

    async def _answer(self, work: Work) -> object:
        """Do some work and return its answer, `Failed` if it could not be done."""
        try:
            async with asyncio.timeout(self._read_timeout):
                return await self._do(work)
        except (CannotReadError, CannotDeleteError) as error:
            return Failed(str(error))
        except TimeoutError:
            return Failed(f"no answer within {self._read_timeout:g} s")
        except Exception as error:
            log.exception("work failed", work=type(work).__name__)
            return Failed(repr(error))

    def _do(self, work: Work) -> Awaitable[object]:
        match work:
            case ListRecords():
                return self._records.list()
            case ListOwners():
                return self._owners.list_live()
            case ListInstances():
                return self._managers[work.manager].list_live()
            case ReadOwner():
                return self._owners.get_live(work.name)
            case ReadInstance():
                return self._managers[work.manager].get_live(work.seen)
            case Write(declares=True):
                return self._records.put(work.record)
            case Write():
                return self._records.update(work.record)
            case Remove():
                return self._records.remove(work.record)
            case Delete():
                log.warning("deleting an orphan", **_facts(work))
                return self._managers[work.manager].delete(work.seen)

    # --- what is told ---

    def _tell(self, work: Work, answer: object) -> None:
        failed = answer.reason if isinstance(answer, Failed) else ""
        match work:
            case Write() | Remove() if failed:
                log.error("record not written", record=work.record.name, reason=failed)
                self.counts["records_failed"] += 1
            case Write(declares=True):
                record = work.record
                self.counts["declared"] += 1
                log.warning(
                    "orphan",
                    record=record.name,
                    name=record.instance.name,
                    uuid=record.instance.uuid,
                    manager=record.manager,
                    reason=record.reason,
                )
            case Remove():
                record = work.record
                self.counts[f"ended_{record.fate}"] += 1
                log.info("orphan record ended", record=record.name, name=record.instance.name,
                         uuid=record.instance.uuid, fate=record.fate, outcome=record.outcome)  # fmt: skip
            case Delete() if failed:
                self.counts["deletes_failed"] += 1
                log.error("orphan not deleted, trying again", **_facts(work), failure=failed)
            case Delete() if answer:
                self.counts["deletes"] += 1
                log.warning("orphan deleted", **_facts(work))
            case Delete():
                log.info("orphan was gone when it was to be deleted", **_facts(work))
            case _:
                pass

    def status(self) -> AgentStatus:
        """Return the present status of the agent."""
        return status_of(self.reconciler)


def _facts(work: Delete) -> dict[str, str]:
    seen = work.seen
    return {
        "name": seen.name,
        "uuid": seen.uuid,
        "manager": work.manager,
        "by": work.who,
        "reason": work.reason,
    }


def _source(work: Work) -> str:
    """Return which source some work is for: owners, records, or an instance manager."""
    match work:
        case ListOwners() | ReadOwner():
            return "owners"
        case ListRecords() | Write() | Remove():
            return "records"
        case Delete():
            # Not behind reads: its own are to be as fresh as can be.
            return f"deletes on {work.manager}"
    return f"instance manager {work.manager}"
