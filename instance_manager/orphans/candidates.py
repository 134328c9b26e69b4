"""Candidates: suspected instances and known orphans, from the first suspicion until the record is closed.

A candidate has at most one action in flight. After its result, it starts another one, is scheduled to be
checked again, or is dropped. A failure always leads to another check.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from instance_manager.orphans import actions, results
from instance_manager.orphans.cache import Caches
from instance_manager.orphans.circuit_breaker import CircuitBreaker
from instance_manager.orphans.model import (
    AUTO_DELETION,
    ObservedInstance,
    Orphan,
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
class Candidate:
    """One instance that is suspected to be an orphan, or was declared one."""

    instance: ObservedInstance
    manager: str
    since: float
    """When it was first suspected, in seconds since the epoch."""
    due: float
    """When it is checked next, in seconds since the epoch."""
    record: Orphan | None = None
    """Its record, once it has been declared an orphan."""
    in_flight: bool = False
    """Whether an action about it is in progress."""
    dirty: bool = False
    """Whether an event about it has come in during that action."""


class Candidates:
    """All the candidates of an agent."""

    def __init__(self, settings: OrphanSettings, caches: Caches, plan: Plan) -> None:
        self.settings = settings
        self.caches = caches
        self.plan = plan
        self.breaker = CircuitBreaker(settings.max_per_minute)
        self.open: dict[str, Candidate] = {}
        """By record name."""
        self.actions: list[actions.CandidateAction] = []
        """To hand out with the next `Reconciler.next_actions`."""
        self._written: set[str] = set()
        """Names of the records written since the list of records was last requested."""

    # --- events ---

    def consider(self, manager: str, name: str, now: float) -> None:
        """Handle a change of the instance or the owner of a name."""
        suspect = self.caches.suspect(manager, name)
        suspected = record_name(suspect, manager) if suspect else ""
        if suspect and suspected not in self.open:
            self.open[suspected] = Candidate(suspect, manager, now, now + self.settings.confirm_delay)
        for key, candidate in list(self.open.items()):
            if candidate.manager != manager or candidate.instance.name != name:
                continue
            if candidate.in_flight:
                self.open[key] = replace(candidate, dirty=True)
            elif key == suspected or not self._looks_over(candidate):
                continue
            elif candidate.record is not None:
                # Check soon and do not conclude from the event, which may be out of date.
                self.open[key] = replace(candidate, due=min(candidate.due, now))
            else:
                del self.open[key]

    def _looks_over(self, candidate: Candidate) -> bool:
        instance = self.caches.managers[candidate.manager].get(candidate.instance.name)
        if isinstance(instance, Unreadable):
            return False
        if instance is None or instance.uuid != candidate.instance.uuid:
            return True
        return not self.caches.unknown(candidate.manager, candidate.instance.name)

    def names(self, manager: str) -> set[str]:
        """Return the names of the candidates on an instance manager."""
        return {each.instance.name for each in self.open.values() if each.manager == manager}

    def on_manager_leaving(self, manager: str, now: float) -> None:
        """Schedule all idle candidates of an instance manager that has left, to drop or close them."""
        for key, candidate in list(self.open.items()):
            if candidate.manager == manager and not candidate.in_flight:
                self.open[key] = replace(candidate, due=now)

    def on_records_requested(self) -> None:
        """Remember that records written from now on may be missing in the list that was just requested."""
        self._written.clear()

    def on_records_listed(self, records: Sequence[Orphan], now: float) -> None:
        """Adopt the open records: those of an earlier agent, and the requests of people."""
        known = {record.name: record for record in records if record.manager in self.caches.managers}
        for key, record in known.items():
            candidate = self.open.get(key)
            if key in self._written:
                continue
            if candidate is None or (candidate.record is None and not candidate.in_flight):
                self.open[key] = Candidate(record.instance, record.manager, record.created, now, record)
            elif candidate.record is not None and record.requested_at > candidate.record.requested_at:
                requested = candidate.record.with_request_of(record)
                self.open[key] = replace(candidate, record=requested, due=now, dirty=candidate.in_flight)
        for key, candidate in list(self.open.items()):
            if candidate.record is None or candidate.in_flight or key in known or key in self._written:
                continue
            del self.open[key]

    # --- what is due ---

    def check_due(self, now: float) -> None:
        """Start checking every candidate that is due."""
        ripe = sum(
            each.record is None
            and each.since + self.settings.confirm_delay <= now
            and not self.caches.unknown(each.manager, each.instance.name)
            for each in self.open.values()
        )
        self.breaker.evaluate(ripe, now)
        for key, candidate in list(self.open.items()):
            if candidate.in_flight or candidate.due > now:
                continue
            if candidate.record is None:
                self._check_suspect(key, candidate, now)
            elif self.caches.managers[candidate.manager].left:
                outcome = "its instance manager has left"
                self._act(
                    key, actions.CloseRecord(candidate.record.close(Resolution.MANAGER_LEFT, now, outcome))
                )
            else:
                # If there are no owners at all, only a person's request is carried out, after a second list.
                believe = bool(candidate.record.requested_by) and self.caches.owners.believe_empty
                self._read(key, verify_again(candidate.instance, candidate.manager, believe_empty=believe))

    def _check_suspect(self, key: str, candidate: Candidate, now: float) -> None:
        name, manager = candidate.instance.name, candidate.manager
        suspect = self.caches.suspect(manager, name)
        if suspect is None or record_name(suspect, manager) != key:
            if self.caches.unknown(manager, name) and not self.caches.managers[manager].left:
                self._wait(key, candidate, now, self.settings.confirm_delay)
            else:
                del self.open[key]
        elif self.breaker.tripped:
            self._wait(key, candidate, now, self.settings.confirm_delay)
        else:
            believe = self.caches.owners.believe_empty
            start = Verification(name, candidate.instance.uuid, manager, self.plan, believe_empty=believe)
            # The first read may be arbitrarily old, so the cache will do.
            self._continue(key, start.on_instance_read(suspect), now)

    def _continue(self, key: str, then: Verification | Conclusion, now: float) -> None:
        candidate = self.open[key]
        if isinstance(then, Verification):
            self._read(key, then)
        elif candidate.record is None:
            self._on_suspect_verified(key, candidate, then, now)
        else:
            self._on_orphan_verified(key, candidate, candidate.record, then, now)

    def _read(self, key: str, verification: Verification) -> None:
        seen = self.open[key].instance
        match verification.next:
            case Read.INSTANCE:
                self._act(key, actions.ReadInstance(key, seen, verification))
            case Read.OWNER:
                self._act(key, actions.ReadOwner(key, seen, verification))
            case Read.ALL_OWNERS:
                self._act(key, actions.ConfirmNoOwner(key, verification))

    def _act(self, key: str, action: actions.CandidateAction) -> None:
        self.open[key] = replace(self.open[key], in_flight=True)
        self.actions.append(action)

    def _on_suspect_verified(self, key: str, candidate: Candidate, found: Conclusion, now: float) -> None:
        """Declare a suspect an orphan, check it again later, or drop it."""
        if found.judgement.is_orphan and isinstance(found.instance, ObservedInstance):
            if self.caches.managers[candidate.manager].left:
                self._drop(key, candidate, now)
            elif self.breaker.tripped:  # other candidates may have become due during the reads
                self._wait(key, candidate, now, self.settings.confirm_delay)
            else:
                instance = replace(candidate.instance, state=found.instance.state)
                record = Orphan(instance, candidate.manager, now, found.judgement.reason)
                self._act(key, actions.WriteRecord(record, declares=True))
        elif found.judgement.verdict is Verdict.UNKNOWN:
            self._wait(key, candidate, now, self.settings.retry)
        else:
            self._drop(key, candidate, now)

    def _on_orphan_verified(
        self, key: str, candidate: Candidate, record: Orphan, found: Conclusion, now: float
    ) -> None:
        """Close a record, delete its instance, or keep it."""
        after = review(record, found.instance, found.owner, now)
        if after.resolution is not Resolution.OPEN:
            self._act(key, actions.CloseRecord(after))
            return
        auto, grace = self.settings.auto_deletion, self.settings.grace
        requester = deletion_requester(record, now, auto_deletion=auto, grace=grace)
        against = self.breaker.tripped or self.caches.identity_warning(candidate.manager)
        if not requester:
            self._rest(key, candidate, record, now)
        elif requester == AUTO_DELETION and against:
            self._keep(key, candidate, record, f"not deleted: {against}", now)
        elif found.judgement.is_orphan:
            reason = f"{found.judgement.reason}; declared an orphan because {record.reason}"
            self._act(key, actions.DeleteInstance(record, requester, reason))
        elif record.deleted_by and found.judgement.verdict is Verdict.IN_TRANSITION:
            self._rest(key, candidate, record, now)
        else:
            self._keep(key, candidate, record, f"not deleted: {found.judgement.reason}", now)

    def _keep(self, key: str, candidate: Candidate, record: Orphan, error: str, now: float) -> None:
        """Record why an instance is not deleted now, and retry later."""
        if record.last_error == error:
            self._rest(key, candidate, record, now)
        else:
            self._update(replace(record, last_error=error))

    def _rest(self, key: str, candidate: Candidate, record: Orphan, now: float) -> None:
        """Schedule the next check of a record: for a delete to send or to retry, or for the full check."""
        auto, grace, resync = self.settings.auto_deletion, self.settings.grace, self.settings.resync
        seconds = resync
        if deletion_requester(record, now, auto_deletion=auto, grace=grace):
            seconds = min(self.settings.retry * 2.0 ** min(record.attempts, 16), resync)
        elif auto:
            seconds = min(record.created + grace - now, resync)
        self._wait(key, replace(candidate, record=record), now, seconds)

    def _wait(self, key: str, candidate: Candidate, now: float, seconds: float) -> None:
        due = now if candidate.dirty else now + seconds
        self.open[key] = replace(candidate, due=due, in_flight=False, dirty=False)

    def _drop(self, key: str, candidate: Candidate, now: float) -> None:
        del self.open[key]
        if candidate.dirty:
            self.consider(candidate.manager, candidate.instance.name, now)

    # --- results ---

    def on_result(self, result: results.CandidateResult, now: float) -> None:
        """Continue after an action."""
        match result:
            case results.InstanceRead(actions.ReadInstance(key, _, verification), instance):
                self._continue(key, verification.on_instance_read(instance), now)
            case results.OwnerRead(actions.ReadOwner(key, _, verification), owner):
                self._continue(key, verification.on_owner_read(owner), now)
            case results.OwnersRead(actions.ConfirmNoOwner(key, verification), owners):
                self._continue(key, verification.on_owners_read(owners), now)
            case results.RecordWritten(actions.WriteRecord() as action):
                self._on_written(action, now)
            case results.RecordWritten(actions.CloseRecord(record)):
                self._written.add(record.name)
                self._drop(record.name, replace(self.open[record.name], dirty=True), now)
            case results.InstanceDeleted(action, found=True):
                record = self._record_of(action)
                self._update(replace(record, deleted_by=action.requester, last_error=""))
            case results.InstanceDeleted(action):
                self._on_delete_failed(action, "it was gone when it was to be deleted")

    def on_failed(self, action: actions.CandidateAction, reason: str, now: float) -> None:
        """Continue after an action that failed."""
        match action:
            case actions.ReadInstance(key, _, verification):
                self._continue(key, verification.on_instance_read(Unreadable(reason)), now)
            case actions.ReadOwner(key, _, verification):
                self._continue(key, verification.on_owner_read(Unreadable(reason)), now)
            case actions.ConfirmNoOwner(key, verification):
                self._continue(key, verification.on_owners_read(Unreadable(reason)), now)
            case actions.WriteRecord(declares=False):
                self._on_written(action, now)  # the next change is written with it
            case actions.WriteRecord(record) | actions.CloseRecord(record):
                self._wait(record.name, self.open[record.name], now, self.settings.retry)
            case actions.DeleteInstance():
                self._on_delete_failed(action, reason)

    def _on_written(self, action: actions.WriteRecord, now: float) -> None:
        key, record = action.record.name, action.record
        candidate = self.open[key]
        if action.declares:
            self.breaker.declared(now)
        self._written.add(key)
        self._rest(key, candidate, record.with_request_of(candidate.record or record), now)

    def _on_delete_failed(self, action: actions.DeleteInstance, reason: str) -> None:
        record = self._record_of(action)
        self._update(replace(record, attempts=record.attempts + 1, last_error=reason))

    def _record_of(self, action: actions.DeleteInstance) -> Orphan:
        """Return the record, with a request that came in during the delete."""
        return self.open[action.record.name].record or action.record

    def _update(self, record: Orphan) -> None:
        self._act(record.name, actions.WriteRecord(record, declares=False))
