"""The order of reads that separates an orphan from an instance that is just being created or deleted.

A controller that creates an instance writes its owner first and calls the instance manager second. One that
deletes an instance calls the instance manager first, which answers when the process is already stopping, and
removes the owner second. Hence three reads, in this order:

1. the instance runs with UUID u: so its owner had been written before;
2. the owner is absent: so it was removed, and a proper deletion had called the instance manager by then;
3. the instance still runs with UUID u: so nobody has called the instance manager. It is an orphan.

The first read may be arbitrarily old. Two reads are not enough, in either order.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum, auto

from instance_manager.orphans.model import Judgement, ObservedInstance, Owner, Unreadable, Verdict, judge


class Read(StrEnum):
    """What to read."""

    INSTANCE = auto()
    OWNER = auto()
    ALL_OWNERS = auto()
    """Read before a missing owner is believed: a list without any owner may mean that data was lost."""


Plan = tuple[Read, ...]

THREE_READS: Plan = (Read.INSTANCE, Read.OWNER, Read.INSTANCE)
INSTANCE_THEN_OWNER: Plan = (Read.INSTANCE, Read.OWNER)
"""Not enough to find an orphan, as a deletion may fall in between; enough to confirm one found before."""

NO_OWNERS = "the owner source shows no owner at all"

_NOT_READ = Unreadable("it was not read")


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The result of a verification."""

    judgement: Judgement
    instance: ObservedInstance | Unreadable | None
    """As last read."""
    owner: Owner | Unreadable | None


@dataclass(frozen=True, slots=True)
class Verification:
    """The reads about one instance, some of them done; `next` is the one to do now."""

    name: str
    uuid: str
    """UUID that every read of the instance must show; empty for the UUID of the first read."""
    manager: str
    plan: Plan = THREE_READS
    """The reads still to do."""
    believe_empty: bool = False
    """Whether an empty list of all owners is to be believed."""
    instance: ObservedInstance | Unreadable | None = _NOT_READ
    owner: Owner | Unreadable | None = _NOT_READ

    @property
    def next(self) -> Read:
        """What to read now, live: except for the very first read, the answer of a cache proves nothing."""
        return self.plan[0]

    def on_instance_read(self, answer: ObservedInstance | Unreadable | None) -> "Verification | Conclusion":
        """Continue with the answer of the instance manager; None if it has no instance of this name."""
        after = replace(self, instance=answer)
        if answer is None:
            return _conclude(after, Verdict.IN_TRANSITION, "the instance is gone")
        if isinstance(answer, Unreadable):
            return _conclude(after, Verdict.UNKNOWN, f"the instance could not be read: {answer.reason}")
        if self.uuid and answer.uuid != self.uuid:
            return _conclude(
                after, Verdict.IN_TRANSITION, f"the name has gone to another UUID: {answer.uuid}"
            )
        return _advance(replace(after, uuid=answer.uuid))

    def on_owner_read(self, answer: Owner | Unreadable | None) -> "Verification | Conclusion":
        """Continue with the owner of this name; None, for no owner, must be confirmed by a list of all."""
        after = replace(self, owner=answer)
        return replace(after, plan=(Read.ALL_OWNERS, *self.plan[1:])) if answer is None else _advance(after)

    def on_owners_read(self, answer: Sequence[Owner] | Unreadable) -> "Verification | Conclusion":
        """Continue with a list of all owners."""
        owner: Owner | Unreadable | None
        if isinstance(answer, Unreadable):
            owner = answer
        elif not answer and not self.believe_empty:
            owner = Unreadable(NO_OWNERS)
        else:
            owner = next((owner for owner in answer if owner.name == self.name), None)
        return _advance(replace(self, owner=owner))


def _advance(verification: Verification) -> Verification | Conclusion:
    """Go to the next read, or conclude if the verdict is clear."""
    after = replace(verification, plan=verification.plan[1:])
    if not isinstance(after.instance, ObservedInstance):
        return after
    # Before the owner is read, this says whether the instance can be judged at all.
    judgement = judge(after.instance, after.owner, after.manager)
    is_open = judgement.is_orphan or (after.owner == _NOT_READ and judgement.verdict is Verdict.UNKNOWN)
    if after.plan and is_open:
        return after
    return Conclusion(judgement, after.instance, after.owner)


def _conclude(verification: Verification, verdict: Verdict, reason: str) -> Conclusion:
    return Conclusion(Judgement(verdict, reason), verification.instance, verification.owner)


def verify_again(instance: ObservedInstance, manager: str, *, believe_empty: bool) -> Verification:
    """Start to verify again an instance that was found to be an orphan before.

    The owner is read last, as close to the deletion as possible. The first of the three reads was made before
    the record was created, and the delete itself makes sure by the UUID that the instance is still the same.
    """
    return Verification(
        instance.name, instance.uuid, manager, INSTANCE_THEN_OWNER, believe_empty=believe_empty
    )
