"""The agents that are explored: the real reconciler, and one that reads the owner before the process."""

import copy
from collections.abc import Hashable, Sequence
from typing import Protocol, Self

from instance_manager.orphans.actions import ListOwners, ReadInstance, ReadOwner, Work, Write
from instance_manager.orphans.model import DataEngine, Kind, ObservedInstance, Orphan, Owner
from instance_manager.orphans.reconciler import Reconciler
from instance_manager.orphans.settings import OrphanSettings
from instance_manager.orphans.verification import THREE_READS, Conclusion, Plan, Read, Verification
from tests.orphans.explorer.world import MANAGER

NEVER = 1e9
NOW = 0.0  # time stands still: nothing has to wait, and what is repeated is a step of its own
SETTINGS = OrphanSettings(wait=0.0, resync=NEVER, poll=NEVER, retry=0.0, limit=1000)


class Agent(Protocol):
    """What the explorer drives."""

    follows: bool
    """Whether it wants to be told what changes."""

    def fork(self) -> Self: ...

    def key(self) -> Hashable: ...

    def has_work(self) -> bool: ...

    def take(self) -> list[Work]: ...

    def told(self, work: Work, answer: object) -> None: ...

    def owner_changed(self, name: str, owner: Owner | None) -> None: ...

    def instance_changed(self, name: str, instance: ObservedInstance | None) -> None: ...

    def begin(
        self, owners: Sequence[Owner], instances: Sequence[ObservedInstance], records: Sequence[Orphan]
    ) -> None: ...

    def resync(self) -> None: ...


class RealAgent:
    """The reconciler itself, with time standing still."""

    follows = True

    def __init__(self, plan: Plan = THREE_READS) -> None:
        self.reconciler = Reconciler(SETTINGS, [MANAGER], plan=plan)
        self._key: Hashable = None

    def fork(self) -> Self:
        twin = copy.copy(self)
        twin._key = None
        real = self.reconciler
        twin.reconciler = reconciler = copy.copy(real)
        reconciler._due = real._due.copy()
        reconciler.views = views = copy.copy(real.views)
        views.owners = real.views.owners.copy()
        views.managers = {name: view.copy() for name, view in real.views.managers.items()}
        reconciler.cases = cases = copy.copy(real.cases)
        cases.views = views
        cases.limiter = real.cases.limiter.copy()
        cases.open = real.cases.open.copy()
        cases.work = real.cases.work.copy()
        cases._written = real.cases._written.copy()
        return twin

    def key(self) -> Hashable:
        if self._key is None:
            real = self.reconciler
            owners, view = real.views.owners, real.views.managers[MANAGER]
            self._key = (
                frozenset((owners.owners or {}).items()),
                frozenset((view.instances or {}).items()),
                owners.owners is None,
                view.instances is None,
                owners.empty_since,
                owners.believe_empty,
                frozenset(real.cases.open.items()),
                tuple(real.cases.work),
                frozenset(real.cases._written),
                frozenset(real._due.items()),
                real.records_known,
                real.cases.limiter.halted,
            )
        return self._key

    def begin(
        self, owners: Sequence[Owner], instances: Sequence[ObservedInstance], records: Sequence[Orphan]
    ) -> None:
        real = self.reconciler
        real.start(NEVER)
        for work in real.take(NOW):
            real.told(work, records, NOW)
        real.instances_listed(MANAGER, instances, NOW)
        real.owners_listed(owners, NOW)

    def has_work(self) -> bool:
        return self.reconciler.next_due() <= NOW or bool(self.reconciler.cases.work)

    def take(self) -> list[Work]:
        return self.reconciler.take(NOW)

    def told(self, work: Work, answer: object) -> None:
        self.reconciler.told(work, answer, NOW)

    def owner_changed(self, name: str, owner: Owner | None) -> None:
        self.reconciler.owner_changed(name, owner, NOW)

    def instance_changed(self, name: str, instance: ObservedInstance | None) -> None:
        self.reconciler.instance_changed(MANAGER, name, instance, NOW)

    def resync(self) -> None:
        self.reconciler.resync(NOW)


class OwnerFirstAgent:
    """Looks at each name once, whenever it likes: its owner first, its process second."""

    follows = False
    PLAN: Plan = (Read.OWNER, Read.INSTANCE)

    def __init__(self, names: Sequence[str]) -> None:
        self.inquiries: dict[str, Verification | None] = dict.fromkeys(names)
        self.unasked = frozenset(names)
        self.work: list[Work] = []

    def fork(self) -> Self:
        twin = copy.copy(self)
        twin.inquiries = self.inquiries.copy()
        twin.work = self.work.copy()
        return twin

    def key(self) -> Hashable:
        return frozenset(self.inquiries.items()), self.unasked, tuple(self.work)

    def begin(
        self, owners: Sequence[Owner], instances: Sequence[ObservedInstance], records: Sequence[Orphan]
    ) -> None:
        """Know the names already."""

    def has_work(self) -> bool:
        return bool(self.unasked or self.work)

    def take(self) -> list[Work]:
        work, self.work = self.work, []
        if self.unasked:
            name = min(self.unasked)
            self.unasked -= {name}
            self.inquiries[name] = Verification(name, "", MANAGER, self.PLAN)
            work.append(ReadOwner(name, name))
        return work

    def told(self, work: Work, answer: object) -> None:
        match work:
            case ReadOwner():
                self._go_on(work.case, self._inquiry(work.case).on_owner_read(answer))  # type: ignore[arg-type]
            case ListOwners():
                self._go_on(work.case, self._inquiry(work.case).on_owners_read(answer))  # type: ignore[arg-type]
            case ReadInstance():
                self._go_on(work.case, self._inquiry(work.case).on_instance_read(answer))  # type: ignore[arg-type]
            case _:
                pass

    def _inquiry(self, name: str) -> Verification:
        inquiry = self.inquiries[name]
        assert inquiry is not None
        return inquiry

    def _go_on(self, name: str, then: Verification | Conclusion) -> None:
        if isinstance(then, Conclusion):
            self.inquiries[name] = None
            if then.judgement.is_orphan and isinstance(then.instance, ObservedInstance):
                self.work.append(Write(name, Orphan(then.instance, MANAGER, NOW, ""), declares=True))
            return
        self.inquiries[name] = then
        if then.next is Read.ALL_OWNERS:
            self.work.append(ListOwners(name))
        else:
            self.work.append(
                ReadInstance(name, MANAGER, ObservedInstance(name, "", Kind.ENGINE, "", DataEngine.V1))
            )

    def owner_changed(self, name: str, owner: Owner | None) -> None:
        """Ask nobody."""

    def instance_changed(self, name: str, instance: ObservedInstance | None) -> None:
        """Ask nobody."""

    def resync(self) -> None:
        """Look once only."""
