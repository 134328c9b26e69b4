"""Asking several replicas at once."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from instance_manager.core.engine import Replica
from instance_manager.core.errors import UpstreamError

T = TypeVar("T")

Outcome = tuple[Replica, T | UpstreamError]
"""A replica, and what it has answered."""


async def ask_each(replicas: Iterable[Replica], ask: Callable[[Replica], Awaitable[T]]) -> list[Outcome[T]]:
    """Ask replicas at once and wait for all of them; return the answers in their order.

    A replica that fails or is slow holds up no other one; the adapter's timeout bounds each.
    """

    async def outcome(replica: Replica) -> Outcome[T]:
        try:
            return replica, await ask(replica)
        except UpstreamError as error:
            # Anew: until all have answered, the frames of this one would hold an answer that was refused.
            return replica, UpstreamError(error.code, str(error))

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(outcome(replica)) for replica in replicas]
    return [task.result() for task in tasks]


def successes(outcomes: Iterable[Outcome[T]]) -> list[tuple[Replica, T]]:
    """Return the replicas with their answers.

    Raises:
        UpstreamError: of the first replica that has failed, as it is.
    """
    answered = []
    for replica, each in outcomes:
        if isinstance(each, UpstreamError):
            raise each
        answered.append((replica, each))
    return answered


def failures(outcomes: Iterable[Outcome[T]]) -> list[tuple[str, str]]:
    """Return address and message of each replica that has failed."""
    return [(replica.address, str(each)) for replica, each in outcomes if isinstance(each, UpstreamError)]


def raise_joined(failed: Sequence[tuple[str, str]]) -> None:
    """Raise one error about all replicas that have failed, in their order; nothing if none has.

    Raises:
        UpstreamError: UNKNOWN, because their codes may differ.
    """
    if failed:
        raise UpstreamError("UNKNOWN", "; ".join(f"{address}: {message}" for address, message in failed))
