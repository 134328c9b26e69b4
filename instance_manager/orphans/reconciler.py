"""Decides what to read and what to do about orphans, without doing any of it.

Events go to `on_event`, `next_actions` returns the actions to carry out now, and their results go to
`on_result`. Nothing here waits, so that the model checker in tests/orphans/explorer can drive it through
every order of events and results.
"""

from collections.abc import Iterable, Sequence

from instance_manager.orphans import actions, events, results
from instance_manager.orphans.cache import Caches
from instance_manager.orphans.candidates import Candidates
from instance_manager.orphans.model import Owner
from instance_manager.orphans.settings import OrphanSettings
from instance_manager.orphans.verification import THREE_READS, Plan

_NEVER = float("inf")


class Reconciler:
    """Keeps the caches and the candidates, and decides what comes next."""

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
        self.caches = Caches(managers, settings.confirm_delay)
        self.candidates = Candidates(settings, self.caches, plan)
        self.records_known = False
        """Whether the records of an earlier agent have been read; until then nothing is judged."""
        self.records_error = ""
        """Why the last read of the records failed; empty if it did not."""
        # Watches bring the first owners and instances; a list has its turn when they are slow.
        self._due: dict[actions.ListAction, float] = {actions.ListRecords(): 0.0}

    def start(self, now: float) -> None:
        """Schedule the first full check."""
        self._due[actions.ListOwners()] = now + self.settings.confirm_delay
        for name in self.caches.managers:
            self._due[actions.ListInstances(name)] = now + self.settings.confirm_delay

    def on_event(self, event: events.Event, now: float) -> None:
        """Update the caches, and check what the event may have changed."""
        match event:
            case events.OwnersListed(owners):
                self._on_owners_listed(owners, now)
            case events.OwnerChanged(name, owner):
                self.caches.owners.change(name, owner)
                for manager in self.caches.managers:
                    self.candidates.consider(manager, name, now)
            case events.OwnersLost(reason):
                self.caches.owners.lose(reason)
                self._hasten(actions.ListOwners(), now + self.settings.retry)
            case events.InstancesListed(manager, instances):
                self.caches.managers[manager].list(instances)
                self._consider_all(now)
            case events.InstanceChanged(manager, name, instance):
                self.caches.managers[manager].change(name, instance)
                self.candidates.consider(manager, name, now)
            case events.InstanceManagerLost(manager, reason) if not self.caches.managers[manager].left:
                self.caches.managers[manager].lose(reason)
                self._hasten(actions.ListInstances(manager), now + self.settings.retry)
            case events.InstanceManagerLeaving(manager):
                # Its records are closed, and its instances left alone.
                self.caches.managers[manager].leave()
                self._due.pop(actions.ListInstances(manager), None)
                self.candidates.on_manager_leaving(manager, now)

    @property
    def is_complete(self) -> bool:
        """Whether everything that instances are judged by is known."""
        errors = [cache.error for cache in self.caches.managers.values() if not cache.left]
        return self.records_known and not any([*errors, self.caches.owners.error, self.records_error])

    def next_actions(self, now: float) -> list[actions.Action]:
        """Return the actions to carry out now, each once; their results go to `on_result`."""
        todo: list[actions.Action] = []
        for action, due in self._due.items():
            if due <= now and (self.records_known or action == actions.ListRecords()):
                self._due[action] = _NEVER
                todo.append(action)
        if actions.ListRecords() in todo:
            self.candidates.on_records_requested()
        if self.records_known:
            self.candidates.check_due(now)
        todo += self.candidates.actions
        self.candidates.actions.clear()
        return todo

    def next_due(self) -> float:
        """Return when `next_actions` has some, in seconds since the epoch, unless an event comes before."""
        if not self.records_known:
            return self._due[actions.ListRecords()]
        idle = (each.due for each in self.candidates.open.values() if not each.in_flight)
        return min([*self._due.values(), *idle])

    def on_result(self, result: results.Result, now: float) -> None:
        """Continue after an action that `next_actions` has returned."""
        match result:
            case results.ActionFailed(action, reason):
                self._on_failed(action, reason, now)
            case results.RecordsRead(action, records):
                self._due[action] = now + self.settings.poll_interval
                self.records_error, self.records_known = "", True
                self.candidates.on_records_listed(records, now)
            case results.InstancesRead(action, instances):
                if not self.caches.managers[action.manager].left:
                    self._due[action] = now + self.settings.resync
                    self.on_event(events.InstancesListed(action.manager, instances), now)
            case results.OwnersRead(actions.ListOwners() as action, owners):
                self._due[action] = now + self.settings.resync
                self._on_owners_listed(owners, now)
            case results.OwnersRead(actions.ConfirmNoOwner(), owners):
                self.caches.owners.note_count(len(owners), now)
                self.candidates.on_result(result, now)
            case _:
                self.candidates.on_result(result, now)

    def _on_failed(self, action: actions.Action, reason: str, now: float) -> None:
        match action:
            case actions.ListRecords():
                self._due[action] = now + self.settings.retry
                self.records_error = reason
            case actions.ListInstances(manager):
                if not self.caches.managers[manager].left:
                    self._due[action] = now + self.settings.retry
                    self.on_event(events.InstanceManagerLost(manager, reason), now)
            case actions.ListOwners():
                self._due[action] = now + self.settings.retry
                self.on_event(events.OwnersLost(reason), now)
            case _:
                self.candidates.on_failed(action, reason, now)

    def _on_owners_listed(self, owners: Sequence[Owner], now: float) -> None:
        self.caches.owners.list(owners, now)
        if self.caches.owners.wants_second_list:
            self._hasten(actions.ListOwners(), now + self.settings.confirm_delay)
        self._consider_all(now)

    def _consider_all(self, now: float) -> None:
        for manager, cache in self.caches.managers.items():
            for name in sorted(self.candidates.names(manager) | set(cache.items or ())):
                self.candidates.consider(manager, name, now)

    def _hasten(self, action: actions.ListAction, due: float) -> None:
        # A list in progress is scheduled again when its result comes.
        if self._due.get(action) != _NEVER:
            self._due[action] = min(self._due.get(action, due), due)
