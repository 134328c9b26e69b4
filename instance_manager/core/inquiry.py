"""The order of reads that tells an orphan from an instance whose creation or deletion is under way.

Whoever creates an instance writes its owner first and calls the instance manager second. Whoever deletes one
calls the instance manager first, which answers when the process is already stopping, and removes the owner
second. Therefore three reads, in this order:

1. the instance runs with UUID u: so its owner had been written before;
2. the owner is absent: so it was removed, and a proper deletion had told the instance manager by then;
3. the instance still runs with UUID u: so nobody has told the instance manager. It is an orphan.

The first read may be as old as it likes. Two reads are not enough, in either order.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum, auto

from instance_manager.core.orphans import Judgement, Observed, Owner, Unreadable, Verdict, judge


class Read(StrEnum):
    """What is to be read next."""

    INSTANCE = auto()
    OWNER = auto()
    ALL_OWNERS = auto()
    """Before a missing owner is believed: a source that shows nothing at all may have lost its data."""


Plan = tuple[Read, ...]

THREE_READS: Plan = (Read.INSTANCE, Read.OWNER, Read.INSTANCE)
PROCESS_THEN_OWNER: Plan = (Read.INSTANCE, Read.OWNER)
"""Too few to find an orphan: a deletion may fall between the two. Enough for one that was found before."""

NO_OWNERS = "the owner source shows no owner at all"

_NOT_READ = Unreadable("it was not looked for")


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What the reads have brought."""

    judgement: Judgement
    instance: Observed | Unreadable | None
    """As it was read last."""
    owner: Owner | Unreadable | None


@dataclass(frozen=True, slots=True)
class Inquiry:
    """The reads about one instance, some of them made; `next` says which comes now."""

    name: str
    uuid: str
    """That the instance has to have in every read; empty: that of the first read."""
    manager: str
    plan: Plan = THREE_READS
    """The reads that are still to be made."""
    believe_empty: bool = False
    """Whether it is known by other means that there may be no owners at all."""
    instance: Observed | Unreadable | None = _NOT_READ
    owner: Owner | Unreadable | None = _NOT_READ

    @property
    def next(self) -> Read:
        """What is to be read now, live: an answer of a cache proves nothing but for the very first read."""
        return self.plan[0]

    def told_instance(self, answer: Observed | Unreadable | None) -> "Inquiry | Conclusion":
        """Go on with what the instance manager has answered; None: it has no instance of this name."""
        after = replace(self, instance=answer)
        if answer is None:
            return _conclude(after, Verdict.IN_TRANSITION, "the instance is gone")
        if isinstance(answer, Unreadable):
            return _conclude(after, Verdict.UNKNOWN, f"the instance could not be read: {answer.reason}")
        if self.uuid and answer.uuid != self.uuid:
            return _conclude(
                after, Verdict.IN_TRANSITION, f"the name has gone to another UUID: {answer.uuid}"
            )
        return _go_on(replace(after, uuid=answer.uuid))

    def told_owner(self, answer: Owner | Unreadable | None) -> "Inquiry | Conclusion":
        """Go on with the owner of this name; None: there is none, which all owners have to confirm."""
        after = replace(self, owner=answer)
        return replace(after, plan=(Read.ALL_OWNERS, *self.plan[1:])) if answer is None else _go_on(after)

    def told_owners(self, answer: Sequence[Owner] | Unreadable) -> "Inquiry | Conclusion":
        """Go on with all the owners there are."""
        owner: Owner | Unreadable | None
        if isinstance(answer, Unreadable):
            owner = answer
        elif not answer and not self.believe_empty:
            owner = Unreadable(NO_OWNERS)
        else:
            owner = next((owner for owner in answer if owner.name == self.name), None)
        return _go_on(replace(self, owner=owner))


def _go_on(inquiry: Inquiry) -> Inquiry | Conclusion:
    """Take the next read, unless what is known settles it."""
    after = replace(inquiry, plan=inquiry.plan[1:])
    if not isinstance(after.instance, Observed):
        return after
    # Before the owner is read this says whether the instance is one to be judged at all.
    judgement = judge(after.instance, after.owner, after.manager)
    is_open = judgement.is_orphan or (after.owner == _NOT_READ and judgement.verdict is Verdict.UNKNOWN)
    if after.plan and is_open:
        return after
    return Conclusion(judgement, after.instance, after.owner)


def _conclude(inquiry: Inquiry, verdict: Verdict, reason: str) -> Conclusion:
    return Conclusion(Judgement(verdict, reason), inquiry.instance, inquiry.owner)


def inquire_again(instance: Observed, manager: str, *, believe_empty: bool) -> Inquiry:
    """Begin the reads about an instance that was found to be an orphan before.

    The owner comes last, as late as can be before the instance is deleted. That the instance was there first
    is known since its record was made; that it is still the same is for the delete itself to hold.
    """
    return Inquiry(instance.name, instance.uuid, manager, PROCESS_THEN_OWNER, believe_empty=believe_empty)
