"""Suspects and records: one case per instance, from the first suspicion until its record is closed.

A case has at most one read or action in progress. After that, the case starts another one, is scheduled to be
looked at again, or is dropped. A failure always leads to another look.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

from instance_manager.orphans.actions import (
    CaseWork,
    Delete,
    Failed,
    ListOwners,
    ReadInstance,
    ReadOwner,
    Remove,
    Write,
)
from instance_manager.orphans.cache import Views
from instance_manager.orphans.circuit_breaker import Limiter
from instance_manager.orphans.model import (
    AUTO_DELETION,
    ObservedInstance,
    Orphan,
    Owner,
    Resolution,
    Unreadable,
    Verdict,
    deletion_requester,
    record_name,
    review,
)
from instance_manager.orphans.settings import OrphanSettings
from instance_manager.orphans.verification import Conclusion, Plan, Read, Verification, verify_again


@dataclass(frozen=True, slots=True)
class Case:
    """One instance that is suspected to be an orphan, or was declared one."""

    instance: ObservedInstance
    manager: str
    since: float
    """When it was first suspected, in seconds since the epoch."""
    due: float
    """When it is looked at next, in seconds since the epoch."""
    record: Orphan | None = None
    """Its record, once it has been declared an orphan."""
    inquiry: Verification | None = None
    """The inquiry in progress."""
    busy: bool = False
    """Whether a read or an action is in progress."""
    touched: bool = False
    """Whether there was news about it in the meantime."""


class Cases:
    """All the cases of an agent."""

    def __init__(self, settings: OrphanSettings, views: Views, plan: Plan) -> None:
        self.settings = settings
        self.views = views
        self.plan = plan
        self.limiter = Limiter(settings.limit)
        self.open: dict[str, Case] = {}
        """By record name."""
        self.work: list[CaseWork] = []
        """Work to hand out with the next `Reconciler.take`."""
        self._written: set[str] = set()
        """Names of the records written since the list of records was last requested."""

    # --- news ---

    def consider(self, manager: str, name: str, now: float) -> None:
        """Take note of news about the instance or the owner of a name."""
        suspect = self.views.suspect(manager, name)
        suspected = record_name(suspect, manager) if suspect else ""
        if suspect and suspected not in self.open:
            self.open[suspected] = Case(suspect, manager, now, now + self.settings.wait)
        for key, case in self._named(manager, name):
            if case.busy:
                self.open[key] = replace(case, touched=True)
            elif key == suspected or not self._looks_over(case):
                continue
            elif case.record is not None:
                # Look soon and do not conclude from the news, which may be out of date.
                self.open[key] = replace(case, due=min(case.due, now))
            else:
                del self.open[key]

    def _looks_over(self, case: Case) -> bool:
        instance = self.views.managers[case.manager].get(case.instance.name)
        if isinstance(instance, Unreadable):
            return False
        if instance is None or instance.uuid != case.instance.uuid:
            return True
        return not self.views.unknown(case.manager, case.instance.name)

    def _named(self, manager: str, name: str) -> list[tuple[str, Case]]:
        return [
            (key, case)
            for key, case in self.open.items()
            if case.manager == manager and case.instance.name == name
        ]

    def names(self, manager: str) -> set[str]:
        """Return the names of the instances on an instance manager for which there are cases."""
        return {case.instance.name for case in self.open.values() if case.manager == manager}

    def manager_left(self, manager: str, now: float) -> None:
        """Schedule all idle cases of an instance manager that has left, to drop or close them."""
        for key, case in list(self.open.items()):
            if case.manager == manager and not case.busy:
                self.open[key] = replace(case, due=now)

    def records_asked(self) -> None:
        """Remember that records written from now on may be missing in the list that was just requested."""
        self._written.clear()

    def take_records(self, records: Sequence[Orphan], now: float) -> None:
        """Take the list of open records: those of an earlier agent, and the requests of people."""
        known = {record.name: record for record in records if record.manager in self.views.managers}
        for key, record in known.items():
            case = self.open.get(key)
            if key in self._written:
                continue
            if case is None or (case.record is None and not case.busy):
                self.open[key] = Case(record.instance, record.manager, record.created, now, record)
            elif case.record is not None and record.requested_at > case.record.requested_at:
                asked = replace(
                    case.record, requested_by=record.requested_by, requested_at=record.requested_at
                )
                self.open[key] = replace(case, record=asked, due=now, touched=case.busy)
        for key, case in list(self.open.items()):
            if case.record is not None and not case.busy and key not in {*known, *self._written}:
                del self.open[key]

    # --- what is due ---

    def begin(self, now: float) -> None:
        """Start looking at every case that is due."""
        ripe = sum(
            case.record is None
            and case.since + self.settings.wait <= now
            and not self.views.unknown(case.manager, case.instance.name)
            for case in self.open.values()
        )
        self.limiter.weigh(ripe, now)
        for key, case in list(self.open.items()):
            if case.busy or case.due > now:
                continue
            if case.record is None:
                self._begin_judging(key, case, now)
            elif self.views.managers[case.manager].left:
                self._remove(
                    key, case.record.close(Resolution.MANAGER_LEFT, now, "its instance manager has left")
                )
            else:
                # If there are no owners at all, only a person's request is carried out, after a second look.
                believe = bool(case.record.requested_by) and self.views.owners.believe_empty
                self._ask(key, case, verify_again(case.instance, case.manager, believe_empty=believe))

    def _begin_judging(self, key: str, case: Case, now: float) -> None:
        name, manager = case.instance.name, case.manager
        suspect = self.views.suspect(manager, name)
        if suspect is None or record_name(suspect, manager) != key:
            if self.views.unknown(manager, name) and not self.views.managers[manager].left:
                self._wait(key, case, now, self.settings.wait)
            else:
                del self.open[key]
        elif self.limiter.halted:
            self._wait(key, case, now, self.settings.wait)
        else:
            believe = self.views.owners.believe_empty
            inquiry = Verification(name, case.instance.uuid, manager, self.plan, believe_empty=believe)
            # The first read may be arbitrarily old, so the view will do.
            self._go_on(key, case, inquiry.on_instance_read(suspect), now)

    def _go_on(self, key: str, case: Case, then: Verification | Conclusion, now: float) -> None:
        if isinstance(then, Verification):
            self._ask(key, case, then)
        elif case.record is None:
            self._judged(key, case, then, now)
        else:
            self._reviewed(key, case, case.record, then, now)

    def _ask(self, key: str, case: Case, inquiry: Verification) -> None:
        self.open[key] = replace(case, inquiry=inquiry, busy=True)
        match inquiry.next:
            case Read.INSTANCE:
                self.work.append(ReadInstance(key, case.manager, case.instance))
            case Read.OWNER:
                self.work.append(ReadOwner(key, case.instance.name))
            case Read.ALL_OWNERS:
                self.work.append(ListOwners(key))

    # --- what the reads have brought ---

    def told_read(self, work: ReadOwner | ListOwners | ReadInstance, answer: object, now: float) -> None:
        """Continue with the answer to a read."""
        case = self.open[work.case]
        inquiry = cast("Verification", case.inquiry)
        told = Unreadable(answer.reason) if isinstance(answer, Failed) else answer
        match work:
            case ReadInstance():
                then = inquiry.on_instance_read(cast("ObservedInstance | Unreadable | None", told))
            case ReadOwner():
                then = inquiry.on_owner_read(cast("Owner | Unreadable | None", told))
            case ListOwners():
                then = inquiry.on_owners_read(cast("Sequence[Owner] | Unreadable", told))
        self._go_on(work.case, replace(case, inquiry=None), then, now)

    def _judged(self, key: str, case: Case, found: Conclusion, now: float) -> None:
        """Declare a suspect an orphan, look again later, or let it go."""
        if found.judgement.is_orphan and isinstance(found.instance, ObservedInstance):
            if self.views.managers[case.manager].left:
                self._let_go(key, case, now)
                return
            # Other cases may have become due during the reads.
            if self.limiter.halted:
                self._wait(key, case, now, self.settings.wait)
                return
            instance = replace(case.instance, state=found.instance.state)
            record = Orphan(instance, case.manager, now, found.judgement.reason)
            self._write(key, case, record, declares=True)
        elif found.judgement.verdict is Verdict.UNKNOWN:
            self._wait(key, case, now, self.settings.retry)
        else:
            self._let_go(key, case, now)

    def _reviewed(self, key: str, case: Case, record: Orphan, found: Conclusion, now: float) -> None:
        """Close a record, delete its instance, or keep it."""
        after = review(record, found.instance, found.owner, now)
        if after.fate is not Resolution.OPEN:
            self._remove(key, after)
            return
        auto, grace = self.settings.auto_deletion, self.settings.grace
        who = deletion_requester(record, now, auto_deletion=auto, grace=grace)
        if not who:
            self._rest(key, case, record, now)
        elif who == AUTO_DELETION and (against := self.limiter.halted or self.views.doubt(case.manager)):
            self._keep(key, case, record, f"not deleted: {against}", now)
        elif found.judgement.is_orphan:
            self.open[key] = replace(case, busy=True)
            reason = f"{found.judgement.reason}; declared an orphan because {record.reason}"
            self.work.append(Delete(key, case.manager, record.instance, who, reason))
        elif record.deleted_by and found.judgement.verdict is Verdict.IN_TRANSITION:
            self._rest(key, case, record, now)
        else:
            self._keep(key, case, record, f"not deleted: {found.judgement.reason}", now)

    def _keep(self, key: str, case: Case, record: Orphan, trouble: str, now: float) -> None:
        """Note why an instance is not deleted now, and try again later."""
        after = replace(record, trouble=trouble)
        if after != record:
            self._write(key, case, after, declares=False)
        else:
            self._rest(key, case, record, now)

    def _rest(self, key: str, case: Case, record: Orphan, now: float) -> None:
        """Schedule the next look at a record: for a delete to send or to retry, or for the full check."""
        auto, grace, resync = self.settings.auto_deletion, self.settings.grace, self.settings.resync
        seconds = resync
        if deletion_requester(record, now, auto_deletion=auto, grace=grace):
            seconds = min(self.settings.retry * 2.0 ** min(record.attempts, 16), resync)
        elif auto:
            seconds = min(record.created + grace - now, resync)
        self._wait(key, replace(case, record=record), now, seconds)

    def _wait(self, key: str, case: Case, now: float, seconds: float) -> None:
        self.open[key] = replace(
            case, due=now if case.touched else now + seconds, inquiry=None, busy=False, touched=False
        )

    def _let_go(self, key: str, case: Case, now: float) -> None:
        del self.open[key]
        if case.touched:
            self.consider(case.manager, case.instance.name, now)

    # --- what was done ---

    def _write(self, key: str, case: Case, record: Orphan, *, declares: bool) -> None:
        self.open[key] = replace(case, busy=True)
        self.work.append(Write(key, record, declares))

    def _remove(self, key: str, record: Orphan) -> None:
        self.open[key] = replace(self.open[key], inquiry=None, busy=True)
        self.work.append(Remove(key, record))

    def told_written(self, work: Write, failed: str, now: float) -> None:
        """Continue after a record was written, or could not be; `failed` is the reason."""
        case = self.open[work.case]
        if failed and work.declares:
            self._wait(work.case, case, now, self.settings.retry)
            return
        if work.declares:
            self.limiter.declared(now)
        asked = case.record
        record = work.record
        if asked is not None and asked.requested_at > record.requested_at:
            record = replace(record, requested_by=asked.requested_by, requested_at=asked.requested_at)
        self._written.add(work.case)
        self._rest(work.case, case, record, now)

    def told_removed(self, work: Remove, failed: str, now: float) -> None:
        """Continue after a record was closed, or could not be; `failed` is the reason."""
        case = self.open[work.case]
        if failed:
            self._wait(work.case, case, now, self.settings.retry)
        else:
            self._written.add(work.case)
            self._let_go(work.case, replace(case, touched=True), now)

    def told_deleted(self, work: Delete, answer: object) -> None:
        """Continue after a delete: accepted (True), without such an instance (False), or `Failed`."""
        case = self.open[work.case]
        record = cast("Orphan", case.record)
        if isinstance(answer, Failed):
            after = replace(record, attempts=record.attempts + 1, trouble=answer.reason)
        elif answer:
            after = replace(record, deleted_by=work.who, trouble="")
        else:
            after = replace(
                record, attempts=record.attempts + 1, trouble="it was gone when it was to be deleted"
            )
        self._write(work.case, case, after, declares=False)
