"""Errors of several replicas in one."""

import gc
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instance_manager.app.engine.each import ask_each, failures, raise_joined, successes
from instance_manager.core.engine import Mode, Replica
from instance_manager.core.errors import UpstreamError

OUTCOMES = st.lists(st.one_of(st.integers(), st.text(max_size=5)), max_size=6)


@given(OUTCOMES)
async def test_answers_come_in_the_order_of_the_replicas(told: list[int | str]) -> None:
    replicas = [Replica(f"tcp://h:{number}", Mode.RW, "v") for number in range(len(told))]

    async def ask(replica: Replica) -> int:
        found = told[replicas.index(replica)]
        if isinstance(found, str):
            raise UpstreamError("ABORTED", found)
        return found

    outcomes = await ask_each(replicas, ask)
    assert [replica for replica, _ in outcomes] == replicas
    failed = failures(outcomes)
    assert failed == [
        (replica.address, each) for replica, each in zip(replicas, told, strict=True) if isinstance(each, str)
    ]
    if not failed:
        raise_joined(failed)
        assert successes(outcomes) == list(zip(replicas, told, strict=True))
        return
    with pytest.raises(UpstreamError) as joined:
        raise_joined(failed)
    assert joined.value.code == "UNKNOWN"
    assert str(joined.value) == "; ".join(f"{address}: {text}" for address, text in failed)
    with pytest.raises(UpstreamError) as first:
        successes(outcomes)
    assert (first.value.code, str(first.value)) == ("ABORTED", failed[0][1])


async def test_an_answer_that_is_refused_is_not_held_until_all_have_answered() -> None:
    class Answer:
        """Some megabytes."""

    held: list[weakref.ref[Answer]] = []

    async def ask(_: Replica) -> None:
        answer = Answer()
        held.append(weakref.ref(answer))
        raise UpstreamError("UNKNOWN", "too much")

    outcomes = await ask_each([Replica("tcp://h:1", Mode.RW, "v")], ask)
    assert failures(outcomes) == [("tcp://h:1", "too much")]
    gc.collect()
    assert [each() for each in held] == [None]
