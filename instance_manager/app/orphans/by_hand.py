"""What a person does about orphans: ask for the verdict and its reasons, and have one deleted.

Every read is live, and in the order that the agent itself keeps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

from instance_manager.app.orphans.interfaces import (
    CannotDeleteError,
    CannotReadError,
    InstanceManagerSource,
    Owners,
    Records,
)
from instance_manager.core.inquiry import Conclusion, Inquiry, Read, inquire_again
from instance_manager.core.orphans import (
    Fate,
    Judgement,
    Observed,
    Orphan,
    Owner,
    Unreadable,
    Verdict,
    review,
)

Answer = Observed | Owner | Sequence[Owner] | Unreadable | None


@dataclass(frozen=True, slots=True)
class Reading:
    """One read and what it has brought."""

    what: Read
    answer: Answer


@dataclass(frozen=True, slots=True)
class Finding:
    """The reads about one instance, and what follows from them."""

    manager: str
    readings: tuple[Reading, ...]
    conclusion: Conclusion

    @property
    def judgement(self) -> Judgement:
        """The verdict and why."""
        return self.conclusion.judgement


@dataclass(frozen=True, slots=True)
class Deletion:
    """What has come of the wish to delete an orphan."""

    record: Orphan
    """As it is now, open or ended."""
    finding: Finding
    taken: bool
    """Whether the instance manager has taken the order, now or before."""


async def explain(name: str, source: InstanceManagerSource, owners: Owners) -> list[Finding]:
    """Judge every instance of a name on an instance manager; none if there is none, or nothing is known.

    There are two at most, one of each data engine. An instance manager that does not answer is one finding.
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
        then = Inquiry(name, seen.uuid, source.name).told_instance(seen)
        found.append(await _inquire(then, seen, source, owners, (Reading(Read.INSTANCE, seen),)))
    return found


async def look_again(record: Orphan, source: InstanceManagerSource, owners: Owners) -> Finding:
    """Read instance and owner of a record, as is done before the instance is deleted."""
    # One look without any owner is not believed; the agent takes the second one.
    inquiry = inquire_again(record.instance, record.manager, believe_empty=False)
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
    """Have the instance of a record deleted because a person wants it; None if the record has ended.

    The wish is written down first: what cannot be done now is left to the agent, which tries again.

    Raises:
        CannotReadError: if the records cannot be used; then nothing was deleted.
    """
    asked = await records.request_delete(record.name, who, now())
    if asked is None:
        return None
    finding = await look_again(asked, source, owners)
    after = review(asked, finding.conclusion.instance, finding.conclusion.owner, now())
    if after.fate is not Fate.OPEN:
        await records.remove(after)
        return Deletion(after, finding, taken=after.fate is Fate.DELETED)
    if finding.judgement.is_orphan:
        after = await _order(asked, who, source)
    elif not asked.deleted_by:
        after = replace(asked, trouble=f"not deleted: {finding.judgement.reason}")
    await records.update(after)
    return Deletion(after, finding, taken=bool(after.deleted_by))


async def _order(record: Orphan, who: str, source: InstanceManagerSource) -> Orphan:
    """Order the deletion and return the record as it is afterwards."""
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
    then: Inquiry | Conclusion,
    seen: Observed,
    source: InstanceManagerSource,
    owners: Owners,
    readings: tuple[Reading, ...],
) -> Finding:
    """Make the reads that an inquiry asks for."""
    answer: Answer
    while isinstance(then, Inquiry):
        what = then.next
        try:
            answer = await _read(what, seen, source, owners)
        except CannotReadError as error:
            answer = Unreadable(str(error))
        readings = (*readings, Reading(what, answer))
        then = _told(then, answer)
    return Finding(source.name, readings, then)


async def _read(what: Read, seen: Observed, source: InstanceManagerSource, owners: Owners) -> Answer:
    match what:
        case Read.INSTANCE:
            return await source.get_live(seen)
        case Read.OWNER:
            return await owners.get_live(seen.name)
        case Read.ALL_OWNERS:
            return await owners.list_live()


def _told(inquiry: Inquiry, answer: Answer) -> Inquiry | Conclusion:
    """Go on with the answer to what the inquiry has asked for."""
    match inquiry.next:
        case Read.INSTANCE:
            return inquiry.told_instance(cast("Observed | Unreadable | None", answer))
        case Read.OWNER:
            return inquiry.told_owner(cast("Owner | Unreadable | None", answer))
        case Read.ALL_OWNERS:
            return inquiry.told_owners(cast("Sequence[Owner] | Unreadable", answer))
