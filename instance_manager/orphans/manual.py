"""What people do about orphans: explain a verdict, and delete an orphan.

Every read is live, and in the order that the agent uses.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from instance_manager.orphans.interfaces import (
    CannotDeleteError,
    CannotReadError,
    InstanceManager,
    Owners,
    Records,
)
from instance_manager.orphans.model import (
    Judgement,
    ObservedInstance,
    Orphan,
    Owner,
    OwnerKind,
    Resolution,
    Unreadable,
    Verdict,
    review,
)
from instance_manager.orphans.verification import Conclusion, Read, Verification, verify_again

T = TypeVar("T")
Answer = ObservedInstance | Owner | Sequence[Owner] | Unreadable | None


@dataclass(frozen=True, slots=True)
class Reading:
    """One read and its answer."""

    what: Read
    answer: Answer


@dataclass(frozen=True, slots=True)
class Explanation:
    """The reads about one instance, and the conclusion."""

    manager: str
    readings: tuple[Reading, ...]
    conclusion: Conclusion

    @property
    def judgement(self) -> Judgement:
        """The verdict and the reason."""
        return self.conclusion.judgement


@dataclass(frozen=True, slots=True)
class Deletion:
    """The result of a request to delete an orphan."""

    record: Orphan
    """The record as it is now, open or closed."""
    explanation: Explanation
    accepted: bool
    """Whether the instance manager has accepted the delete, now or before."""


async def explain(name: str, manager: InstanceManager, owners: Owners) -> list[Explanation]:
    """Judge the instances with a name on an instance manager: at most two, one of each data engine.

    An instance manager that does not answer has one explanation, with the verdict `unknown`.
    """
    listed = await _answer(manager.list_live())
    if isinstance(listed, Unreadable):
        conclusion = Conclusion(Judgement(Verdict.UNKNOWN, listed.reason), listed, None)
        return [Explanation(manager.name, (Reading(Read.INSTANCE, listed),), conclusion)]
    return [
        await _verify(
            Verification(name, seen.uuid, manager.name).on_instance_read(seen),
            seen,
            manager,
            owners,
            (Reading(Read.INSTANCE, seen),),
        )
        for seen in listed
        if seen.name == name
    ]


async def verify_record(record: Orphan, manager: InstanceManager, owners: Owners) -> Explanation:
    """Read the instance and the owner of a record, as before every deletion."""
    # A single list without any owner is not believed; the agent makes the second one.
    verification = verify_again(record.instance, record.manager, believe_empty=False)
    return await _verify(verification, record.instance, manager, owners, ())


async def delete(
    record: Orphan,
    who: str,
    *,
    manager: InstanceManager,
    owners: Owners,
    records: Records,
    now: Callable[[], float],
) -> Deletion | None:
    """Delete the instance of a record at the request of a person; None if the record is closed.

    The request is recorded first. If the instance cannot be deleted now, the agent retries.

    Args:
        record: the record of the orphan.
        who: the person.
        manager: the instance manager on which it runs.
        owners: the owners.
        records: the records.
        now: returns seconds since the epoch.

    Raises:
        CannotReadError: if the records cannot be used; then nothing was deleted.
    """
    request = await records.request_delete(record.name, who, now())
    if request is None:
        return None
    explanation = await verify_record(request, manager, owners)
    after = review(request, explanation.conclusion.instance, explanation.conclusion.owner, now())
    if after.resolution is not Resolution.OPEN:
        await records.remove(after)
        return Deletion(after, explanation, accepted=after.resolution is Resolution.DELETED)
    if explanation.judgement.is_orphan:
        after = await _send_delete(request, who, manager)
    elif not request.deleted_by:
        after = replace(request, last_error=f"not deleted: {explanation.judgement.reason}")
    await records.update(after)
    return Deletion(after, explanation, accepted=bool(after.deleted_by))


async def _send_delete(record: Orphan, who: str, manager: InstanceManager) -> Orphan:
    """Send the delete, and return the updated record."""
    try:
        accepted = await manager.delete(record.instance)
    except CannotDeleteError as error:
        return replace(record, attempts=record.attempts + 1, last_error=str(error))
    if accepted:
        return replace(record, deleted_by=who, last_error="")
    return replace(
        record, attempts=record.attempts + 1, last_error="no instance has this name and UUID any more"
    )


async def _verify(
    then: Verification | Conclusion,
    seen: ObservedInstance,
    manager: InstanceManager,
    owners: Owners,
    readings: tuple[Reading, ...],
) -> Explanation:
    """Do the reads of a verification until it concludes."""
    answer: Answer
    while isinstance(then, Verification):
        what = then.next
        match what:
            case Read.INSTANCE:
                answer = instance = await _answer(manager.get_live(seen))
                then = then.on_instance_read(instance)
            case Read.OWNER:
                answer = owner = await _answer(owners.get_live(OwnerKind(seen.kind), seen.name))
                then = then.on_owner_read(owner)
            case Read.ALL_OWNERS:
                answer = everyone = await _answer(owners.list_live())
                then = then.on_owners_read(everyone)
        readings = (*readings, Reading(what, answer))
    return Explanation(manager.name, readings, then)


async def _answer(read: Awaitable[T]) -> T | Unreadable:
    try:
        return await read
    except CannotReadError as error:
        return Unreadable(str(error))
