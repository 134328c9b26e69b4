"""What people do about orphans: ask for a verdict and its reasons, and have an orphan deleted.

Every read is live, and in the order that the agent uses.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

from instance_manager.orphans.interfaces import (
    CannotDeleteError,
    CannotReadError,
    InstanceManagerSource,
    Owners,
    Records,
)
from instance_manager.orphans.model import (
    Judgement,
    ObservedInstance,
    Orphan,
    Owner,
    Resolution,
    Unreadable,
    Verdict,
    review,
)
from instance_manager.orphans.verification import Conclusion, Read, Verification, verify_again

Answer = ObservedInstance | Owner | Sequence[Owner] | Unreadable | None


@dataclass(frozen=True, slots=True)
class Reading:
    """One read and its answer."""

    what: Read
    answer: Answer


@dataclass(frozen=True, slots=True)
class Finding:
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
    finding: Finding
    taken: bool
    """Whether the instance manager has accepted the delete, now or before."""


async def explain(name: str, source: InstanceManagerSource, owners: Owners) -> list[Finding]:
    """Judge the instances with a name on an instance manager: at most two, one of each data engine.

    An instance manager that does not answer counts as one finding, with the verdict `unknown`.
    """
    try:
        first = [instance for instance in await source.list_live() if instance.name == name]
    except CannotReadError as error:
        trouble = Unreadable(str(error))
        judgement = Judgement(Verdict.UNKNOWN, str(error))
        conclusion = Conclusion(judgement, trouble, None)
        return [Finding(source.name, (Reading(Read.INSTANCE, trouble),), conclusion)]
    found = []
    for seen in first:
        then = Verification(name, seen.uuid, source.name).on_instance_read(seen)
        found.append(await _inquire(then, seen, source, owners, (Reading(Read.INSTANCE, seen),)))
    return found


async def look_again(record: Orphan, source: InstanceManagerSource, owners: Owners) -> Finding:
    """Read the instance and the owner of a record, as before every deletion."""
    # A single list without any owner is not believed; the agent makes the second one.
    inquiry = verify_again(record.instance, record.manager, believe_empty=False)
    return await _inquire(inquiry, record.instance, source, owners, ())


async def delete(
    record: Orphan,
    who: str,
    *,
    source: InstanceManagerSource,
    owners: Owners,
    records: Records,
    now: Callable[[], float],
) -> Deletion | None:
    """Delete the instance of a record at the request of a person; None if the record is closed.

    The request is recorded first. If the instance cannot be deleted now, the agent tries again.

    Args:
        record: the record of the orphan.
        who: the person.
        source: the instance manager on which it runs.
        owners: the owners.
        records: the records.
        now: returns seconds since the epoch.

    Raises:
        CannotReadError: if the records cannot be used; then nothing was deleted.
    """
    asked = await records.request_delete(record.name, who, now())
    if asked is None:
        return None
    finding = await look_again(asked, source, owners)
    after = review(asked, finding.conclusion.instance, finding.conclusion.owner, now())
    if after.fate is not Resolution.OPEN:
        await records.remove(after)
        return Deletion(after, finding, taken=after.fate is Resolution.DELETED)
    if finding.judgement.is_orphan:
        after = await _order(asked, who, source)
    elif not asked.deleted_by:
        after = replace(asked, trouble=f"not deleted: {finding.judgement.reason}")
    await records.update(after)
    return Deletion(after, finding, taken=bool(after.deleted_by))


async def _order(record: Orphan, who: str, source: InstanceManagerSource) -> Orphan:
    """Send the delete, and return the updated record."""
    try:
        taken = await source.delete(record.instance)
    except CannotDeleteError as error:
        return replace(record, attempts=record.attempts + 1, trouble=str(error))
    if taken:
        return replace(record, deleted_by=who, trouble="")
    return replace(
        record, attempts=record.attempts + 1, trouble="no instance has this name and UUID any more"
    )


async def _inquire(
    then: Verification | Conclusion,
    seen: ObservedInstance,
    source: InstanceManagerSource,
    owners: Owners,
    readings: tuple[Reading, ...],
) -> Finding:
    """Do the reads of an inquiry until it concludes."""
    answer: Answer
    while isinstance(then, Verification):
        what = then.next
        try:
            answer = await _read(what, seen, source, owners)
        except CannotReadError as error:
            answer = Unreadable(str(error))
        readings = (*readings, Reading(what, answer))
        then = _told(then, answer)
    return Finding(source.name, readings, then)


async def _read(what: Read, seen: ObservedInstance, source: InstanceManagerSource, owners: Owners) -> Answer:
    match what:
        case Read.INSTANCE:
            return await source.get_live(seen)
        case Read.OWNER:
            return await owners.get_live(seen.name)
        case Read.ALL_OWNERS:
            return await owners.list_live()


def _told(inquiry: Verification, answer: Answer) -> Verification | Conclusion:
    """Continue an inquiry with the answer to its next read."""
    match inquiry.next:
        case Read.INSTANCE:
            return inquiry.on_instance_read(cast("ObservedInstance | Unreadable | None", answer))
        case Read.OWNER:
            return inquiry.on_owner_read(cast("Owner | Unreadable | None", answer))
        case Read.ALL_OWNERS:
            return inquiry.on_owners_read(cast("Sequence[Owner] | Unreadable", answer))
