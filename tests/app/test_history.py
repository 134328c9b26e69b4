"""The memory of the event log: resumed without a gap, or refused with a reason."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instance_manager.app.history import EmptyEventStore, History
from instance_manager.core.change import Change
from instance_manager.core.errors import OutOfRangeError
from instance_manager.core.ports import PortRange
from instance_manager.core.process import ExitStatus, Process, State
from instance_manager.core.spec import ProcessSpec

PROCESS = Process(spec=ProcessSpec(name="r", binary="/bin/r"), uuid="u")


def change(revision: int) -> Change:
    return Change(revision, float(revision), PROCESS, None)


class Told:
    """What earlier daemons have told; implements `interfaces.EventStore`."""

    epoch = "e1"

    def __init__(self, *revisions: int, revision: int | None = None) -> None:
        self._revisions = revisions
        self.revision = revisions[-1] if revision is None else revision
        self.fetched = 0

    async def changes(self) -> AsyncIterator[Change]:
        self.fetched += 1
        for revision in self._revisions:
            await asyncio.sleep(0)
            yield change(revision)


def revisions(changes: list[Change]) -> list[int]:
    return [each.revision for each in changes]


@given(
    past=st.integers(0, 20), present=st.integers(0, 20), memory=st.integers(1, 30), seen=st.integers(0, 50)
)
async def test_who_resumes_gets_every_later_change_or_is_refused(
    past: int, present: int, memory: int, seen: int
) -> None:
    history = History(Told(*range(1, past + 1)) if past else EmptyEventStore(), memory)
    for revision in range(past + 1, past + present + 1):
        history.add(change(revision))
    latest = past + present
    if max(latest - memory, 0) <= seen <= latest:
        assert revisions(await history.after(seen)) == list(range(seen + 1, latest + 1))
        return
    oldest = max(latest - memory, 0) + 1
    with pytest.raises(OutOfRangeError, match=f"the oldest one that is remembered is {oldest};"):
        await history.after(seen)


async def test_the_past_is_fetched_once_for_all_who_ask() -> None:
    past = Told(1, 2, 3)
    history = History(past, 10)
    history.add(change(4))
    answers = await asyncio.gather(history.after(0), history.after(1), history.all())
    assert [revisions(answer) for answer in answers] == [[1, 2, 3, 4], [2, 3, 4], [1, 2, 3, 4]]
    assert past.fetched == 1


async def test_who_goes_away_while_the_past_is_fetched_takes_it_from_nobody() -> None:
    history = History(Told(1, 2), 10)
    gone, waiting = (asyncio.create_task(history.after(0)) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    assert revisions(await waiting) == [1, 2]
    assert gone.cancelled()


async def test_a_past_that_could_not_be_fetched_is_fetched_the_next_time() -> None:
    past, errors = Told(1, 2), [KeyError("odd")]
    fetch = past.changes

    def fetch_later() -> AsyncIterator[Change]:
        if errors:
            raise errors.pop()
        return fetch()

    past.changes = fetch_later  # type: ignore[method-assign]
    history = History(past, 10)
    with pytest.raises(KeyError):
        await history.after(0)
    assert revisions(await history.after(0)) == [1, 2]


async def test_what_happens_while_the_past_is_fetched_is_not_lost() -> None:
    history = History(Told(1, 2), 10)
    asking = asyncio.create_task(history.after(0))
    await asyncio.sleep(0)
    history.add(change(3))
    assert revisions(await asking) == [1, 2, 3]


async def test_who_asks_for_what_is_in_memory_does_not_wait_for_the_past() -> None:
    past = Told(1, 2)
    history = History(past, 10)
    history.add(change(3))
    assert revisions(await history.after(2)) == [3]
    assert past.fetched == 0


@pytest.mark.parametrize("past", [Told(1, 2, 4, 5), Told(4, 5)])
async def test_nothing_before_a_gap_in_the_past_is_told(past: Told) -> None:
    history = History(past, 10)
    assert revisions(await history.after(3)) == [4, 5]
    with pytest.raises(OutOfRangeError, match="oldest one that is remembered is 4"):
        await history.after(2)


async def test_a_past_that_does_not_reach_the_present_is_not_told() -> None:
    history = History(Told(1, 2, revision=5), 10)
    assert await history.after(5) == []
    with pytest.raises(OutOfRangeError, match="oldest one that is remembered is 6"):
        await history.after(4)


async def test_a_revision_of_another_sequence_is_refused() -> None:
    history = History(Told(1, 2), 10)
    assert revisions(await history.after(1, "e1")) == [2]
    with pytest.raises(OutOfRangeError, match=r"another sequence .* oldest one that is remembered is 1;"):
        await history.after(1, "e0")


@pytest.mark.parametrize(
    ("process", "previous", "reason"),
    [
        (PROCESS, None, "created"),
        (replace(PROCESS, state=State.RUNNING), State.STARTING, "started"),
        (replace(PROCESS, state=State.RUNNING, ports=PortRange(1, 1)), State.STARTING, "answers on its port"),
        (replace(PROCESS, state=State.STOPPING), State.RUNNING, "asked to end with SIGINT"),
        (replace(PROCESS, state=State.STOPPED, exit=ExitStatus(3)), State.STOPPING, "ended: exit status 3"),
        (replace(PROCESS, state=State.ERROR, failure="signal: SIGKILL"), State.RUNNING, "signal: SIGKILL"),
        (replace(PROCESS, state=State.RUNNING), State.RUNNING, "conditions changed"),
    ],
)
def test_each_change_tells_why(process: Process, previous: State | None, reason: str) -> None:
    assert Change(1, 0.0, process, previous).reason == reason
    ended = Change(1, 0.0, process, previous, deleted=True)
    assert ended.reason == "nothing is left of it"
    replaced = replace(ended, successor="uuid-of-another")
    assert replaced.reason == "nothing is left of it; its name belongs to another"
