"""Decides what to read and what to do about orphans, without doing any of it.

`take` returns the work to do now, `told` takes an answer, and the other methods take news. Nothing here
waits, so that the model checker in tests/explorer can drive it through every order of news and answers.
"""

from collections.abc import Iterable, Sequence
from typing import cast

from instance_manager.orphans.actions import (
    Delete,
    Failed,
    ListInstances,
    ListOwners,
    ListRecords,
    Lists,
    ReadInstance,
    ReadOwner,
    Remove,
    Work,
    Write,
)
from instance_manager.orphans.cache import Views
from instance_manager.orphans.candidates import Cases
from instance_manager.orphans.model import ObservedInstance, Orphan, Owner
from instance_manager.orphans.settings import OrphanSettings
from instance_manager.orphans.verification import THREE_READS, Plan

_NEVER = float("inf")


class Reconciler:
    """Keeps the views, the suspects and the records, and decides what comes next."""

    def __init__(
        self, settings: OrphanSettings, managers: Iterable[str], *, plan: Plan = THREE_READS
    ) -> None:
        """Start knowing nothing.

        Args:
            settings: all settings.
            managers: names of the instance managers to follow.
            plan: the reads before an orphan is declared; fewer than three only in tests, to see them fail.
        """
        self.settings = settings
        self.views = Views(managers, settings.wait)
        self.cases = Cases(settings, self.views, plan)
        self.records_known = False
        """Whether the records of an earlier agent have been read; until then nothing is judged."""
        self.records_trouble = ""
        """Why the last read of the records failed; empty if it did not."""
        # Notifications bring the first owners and instances; a list has its turn when they are slow.
        self._due: dict[Lists, float] = {ListRecords(): 0.0}

    def start(self, now: float) -> None:
        """Schedule the first full check."""
        for what in self._everything():
            self._due[what] = now + self.settings.wait

    def _everything(self) -> list[Lists]:
        managers = (ListInstances(name) for name, view in self.views.managers.items() if not view.left)
        return [ListOwners(), *managers]

    # --- news ---

    def owners_listed(self, owners: Sequence[Owner], now: float) -> None:
        """Take a list of all owners."""
        self.views.owners.list(owners, now)
        if self.views.owners.wants_second_look:
            self._hasten(ListOwners(), now + self.settings.wait)
        self._consider_all(now)

    def owner_changed(self, name: str, owner: Owner | None, now: float) -> None:
        """Take the change of one owner; None if it is gone."""
        self.views.owners.change(name, owner)
        for manager in self.views.managers:
            self.cases.consider(manager, name, now)

    def owners_lost(self, reason: str, now: float) -> None:
        """Forget the owners until they are listed again."""
        self.views.owners.lose(reason)
        self._hasten(ListOwners(), now + self.settings.retry)

    def instances_listed(self, manager: str, instances: Sequence[ObservedInstance], now: float) -> None:
        """Take a list of all instances on an instance manager."""
        self.views.managers[manager].list(instances)
        self._consider_all(now)

    def instance_changed(
        self, manager: str, name: str, instance: ObservedInstance | None, now: float
    ) -> None:
        """Take the change of one instance; None if it is gone."""
        self.views.managers[manager].change(name, instance)
        self.cases.consider(manager, name, now)

    def manager_lost(self, manager: str, reason: str, now: float) -> None:
        """Forget the instances on an instance manager until they are listed again."""
        self.views.managers[manager].lose(reason)
        self._hasten(ListInstances(manager), now + self.settings.retry)

    def manager_left(self, manager: str, now: float) -> None:
        """Close all records of an instance manager that is going away, and leave its instances alone."""
        self.views.managers[manager].leave()
        self._due.pop(ListInstances(manager), None)
        self.cases.manager_left(manager, now)

    def _consider_all(self, now: float) -> None:
        for manager, view in self.views.managers.items():
            for name in sorted(self.cases.names(manager) | set(view.instances or ())):
                self.cases.consider(manager, name, now)

    # --- what is due ---

    def take(self, now: float) -> list[Work]:
        """Return the work to do now, each item once; its answer goes to `told`."""
        work: list[Work] = []
        for what, due in self._due.items():
            if due <= now and (self.records_known or what == ListRecords()):
                self._due[what] = _NEVER
                work.append(what)
        if ListRecords() in work:
            self.cases.records_asked()
        if self.records_known:
            self.cases.begin(now)
        work += self.cases.work
        self.cases.work.clear()
        return work

    def next_due(self) -> float:
        """Return when `take` will return work, in seconds since the epoch, unless there is news before."""
        lists = self._due.values() if self.records_known else [self._due[ListRecords()]]
        cases = self.cases.open.values() if self.records_known else ()
        return min([*lists, *(case.due for case in cases if not case.busy)], default=_NEVER)

    def resync(self, now: float) -> None:
        """Schedule a full check now."""
        for what in self._everything():
            self._hasten(what, now)

    def _hasten(self, what: Lists, due: float) -> None:
        # A list in progress is scheduled again when its answer comes.
        if self._due.get(what) != _NEVER:
            self._due[what] = min(self._due.get(what, due), due)

    # --- answers ---

    def told(self, work: Work, answer: object, now: float) -> None:
        """Take the answer to work that `take` has returned, `Failed` if it could not be done."""
        failed = answer.reason if isinstance(answer, Failed) else ""
        match work:
            case ListRecords() | ListInstances() | ListOwners(case=""):
                self._told_list(work, answer, failed, now)
            case ListOwners():
                if not failed:
                    self.views.owners.note_count(len(cast("Sequence[Owner]", answer)), now)
                self.cases.told_read(work, answer, now)
            case ReadOwner() | ReadInstance():
                self.cases.told_read(work, answer, now)
            case Write():
                self.cases.told_written(work, failed, now)
            case Remove():
                self.cases.told_removed(work, failed, now)
            case Delete():
                self.cases.told_deleted(work, answer)

    def _told_list(self, work: Lists, answer: object, failed: str, now: float) -> None:
        self._due[work] = now + (self.settings.retry if failed else self._interval(work))
        match work:
            case ListRecords():
                self.records_trouble = failed
                if not failed:
                    self.records_known = True
                    self.cases.take_records(cast("Sequence[Orphan]", answer), now)
            case ListInstances() if self.views.managers[work.manager].left:
                del self._due[work]
            case ListInstances() if failed:
                self.manager_lost(work.manager, failed, now)
            case ListInstances():
                self.instances_listed(work.manager, cast("Sequence[ObservedInstance]", answer), now)
            case _ if failed:
                self.owners_lost(failed, now)
            case _:
                self.owners_listed(cast("Sequence[Owner]", answer), now)

    def _interval(self, work: Lists) -> float:
        return self.settings.poll if work == ListRecords() else self.settings.resync
