"""The agents that are explored: the real reconciler, and one that reads the owner before the process."""

import copy
from collections import deque
from collections.abc import Hashable, Sequence
from typing import Any, Protocol, Self

from instance_manager.orphans.actions import Action, ConfirmNoOwner, ReadInstance, ReadOwner, WriteRecord
from instance_manager.orphans.cache import Caches, InstanceCache, OwnerCache
from instance_manager.orphans.candidates import Candidates
from instance_manager.orphans.circuit_breaker import CircuitBreaker
from instance_manager.orphans.events import InstanceChanged, InstancesListed, OwnerChanged, OwnersListed
from instance_manager.orphans.model import ObservedInstance, Orphan, Owner, OwnerKind
from instance_manager.orphans.reconciler import Reconciler
from instance_manager.orphans.results import InstanceRead, OwnerRead, OwnersRead, RecordsRead, Result
from instance_manager.orphans.settings import OrphanSettings
from instance_manager.orphans.verification import THREE_READS, Conclusion, Plan, Read, Verification
from tests.orphans.explorer.world import MANAGER

NEVER = 1e9
NOW = 0.0  # time stands still: nothing has to wait, and what is repeated is a step of its own
SETTINGS = OrphanSettings(
    confirm_delay=0.0, resync=NEVER, poll_interval=NEVER, retry=0.0, max_per_minute=1000
)
_MUTABLE = (Reconciler, Candidates, Caches, OwnerCache, InstanceCache, CircuitBreaker)


class Agent(Protocol):
    """What the explorer drives."""

    follows: bool
    """Whether it watches what changes."""

    def fork(self) -> Self: ...

    def key(self) -> Hashable: ...

    def has_work(self) -> bool: ...

    def next_actions(self) -> list[Action]: ...

    def on_result(self, result: Result) -> None: ...

    def on_event(self, event: OwnerChanged | InstanceChanged) -> None: ...

    def begin(
        self, owners: Sequence[Owner], instances: Sequence[ObservedInstance], records: Sequence[Orphan]
    ) -> None: ...

    def list_everything(self, owners: Sequence[Owner], instances: Sequence[ObservedInstance]) -> None: ...


class RealAgent:
    """The reconciler itself, with time standing still."""

    follows = True

    def __init__(self, plan: Plan = THREE_READS) -> None:
        self.reconciler = Reconciler(SETTINGS, [MANAGER], plan=plan)
        self._key: Hashable = None

    def fork(self) -> Self:
        twin = copy.copy(self)
        twin._key = None
        twin.reconciler = _forked(self.reconciler, {})
        return twin

    def key(self) -> Hashable:
        if self._key is None:
            real = self.reconciler
            owners, instances = real.caches.owners, real.caches.managers[MANAGER].items
            self._key = (
                frozenset((owners.items or {}).items()),
                frozenset((instances or {}).items()),
                owners.items is None,
                instances is None,
                owners.empty_since,
                owners.believe_empty,
                frozenset(real.candidates.open.items()),
                tuple(real.candidates.actions),
                frozenset(real.candidates._written),
                frozenset(real._due.items()),
                real.records_known,
                real.candidates.breaker.tripped,
            )
        return self._key

    def begin(
        self, owners: Sequence[Owner], instances: Sequence[ObservedInstance], records: Sequence[Orphan]
    ) -> None:
        real = self.reconciler
        real.start(NEVER)
        for action in real.next_actions(NOW):
            real.on_result(RecordsRead(action, records), NOW)  # type: ignore[arg-type]
        self.list_everything(owners, instances)

    def list_everything(self, owners: Sequence[Owner], instances: Sequence[ObservedInstance]) -> None:
        self.reconciler.on_event(InstancesListed(MANAGER, instances), NOW)
        self.reconciler.on_event(OwnersListed(owners), NOW)

    def has_work(self) -> bool:
        return self.reconciler.next_due() <= NOW or bool(self.reconciler.candidates.actions)

    def next_actions(self) -> list[Action]:
        return self.reconciler.next_actions(NOW)

    def on_result(self, result: Result) -> None:
        self.reconciler.on_result(result, NOW)

    def on_event(self, event: OwnerChanged | InstanceChanged) -> None:
        self.reconciler.on_event(event, NOW)


def _forked(value: Any, known: dict[int, Any]) -> Any:
    """Copy everything that can change, and share the rest: `copy.deepcopy` would copy it all."""
    if id(value) in known:
        return known[id(value)]
    twin = value
    if isinstance(value, dict):
        twin = {key: _forked(each, known) for key, each in value.items()}
    elif isinstance(value, list | set | deque):
        twin = value.copy()
    elif isinstance(value, _MUTABLE):
        twin = known[id(value)] = copy.copy(value)
        for name in vars(value):
            setattr(twin, name, _forked(getattr(value, name), known))
    return twin


class OwnerFirstAgent:
    """Looks at each name once, whenever it likes: its owner first, its process second."""

    follows = False
    PLAN: Plan = (Read.OWNER, Read.INSTANCE)

    def __init__(self, names: Sequence[str]) -> None:
        self.unread = frozenset(names)
        self.actions: list[Action] = []

    def fork(self) -> Self:
        twin = copy.copy(self)
        twin.actions = self.actions.copy()
        return twin

    def key(self) -> Hashable:
        return self.unread, tuple(self.actions)

    def begin(
        self, owners: Sequence[Owner], instances: Sequence[ObservedInstance], records: Sequence[Orphan]
    ) -> None:
        """Know the names already."""

    def has_work(self) -> bool:
        return bool(self.unread or self.actions)

    def next_actions(self) -> list[Action]:
        actions, self.actions = self.actions, []
        if self.unread:
            name = min(self.unread)
            self.unread -= {name}
            actions.append(ReadOwner(name, _unseen(name), Verification(name, "", MANAGER, self.PLAN)))
        return actions

    def on_result(self, result: Result) -> None:
        match result:
            case OwnerRead(ReadOwner(_, _, verification), owner):
                self._continue(verification.on_owner_read(owner))
            case OwnersRead(ConfirmNoOwner(_, verification), owners):
                self._continue(verification.on_owners_read(owners))
            case InstanceRead(ReadInstance(name, _, verification), instance):
                self._conclude(name, verification.on_instance_read(instance))
            case _:
                pass

    def _continue(self, then: Verification | Conclusion) -> None:
        match then:
            case Verification(name) if then.next is Read.ALL_OWNERS:
                self.actions.append(ConfirmNoOwner(name, then))
            case Verification(name):
                self.actions.append(ReadInstance(name, _unseen(name), then))

    def _conclude(self, name: str, then: Verification | Conclusion) -> None:
        assert isinstance(then, Conclusion), name
        if then.judgement.is_orphan and isinstance(then.instance, ObservedInstance):
            self.actions.append(WriteRecord(Orphan(then.instance, MANAGER, NOW, ""), declares=True))

    def on_event(self, event: OwnerChanged | InstanceChanged) -> None:
        """Watch nothing."""

    def list_everything(self, owners: Sequence[Owner], instances: Sequence[ObservedInstance]) -> None:
        """Look once only."""


def _unseen(name: str) -> ObservedInstance:
    return ObservedInstance(name, "", OwnerKind.ENGINE, "")
