"""Receiving requests, of which a client may have sent any part: few at a time, and not for ever.

gRPC keeps what has come of a request once it is asked for it; before that, no more than the first window of
the stream. So a request for which there is no room waits. `core/slots.py` decides who waits for whom.
"""

import asyncio
from typing import Any

import grpc
import grpc.aio

from instance_manager.api.service import Context
from instance_manager.core.slots import Holder
from instance_manager.platform.turns import GivenUpError, Turns

MAX_ARRIVING = 128
"""Largest number of requests that are received at the same time."""
MAX_HELD = 1024
"""Largest number of requests that have not arrived, those that wait included.

Fewer than the calls that there may be, so that room is left for those of other clients.
"""
PATIENCE = 1.0
"""Seconds that a request may take to arrive while others wait; then its call is refused."""
SHORT_PATIENCE = 0.3
"""The same if requests of a client wait that has fewer under way."""
MAX_LARGE_ARRIVING, MAX_LARGE_HELD = 4, 256
"""The same for requests of methods that take large ones."""
MAX_BESIDE_LARGE = 24
"""The same for those of other methods of the same server: gRPC would take large ones for them, too."""


class Arrivals:
    """Receives the requests of calls, those of different clients in turn."""

    def __init__(self, most: int | None = None, held: int | None = None) -> None:
        """Receive none yet.

        Args:
            most: largest number that are received at the same time, `MAX_ARRIVING` if it is None.
            held: the same with those that wait, `MAX_HELD` if it is None.
        """
        most = MAX_ARRIVING if most is None else most
        self._turns = Turns(most, MAX_HELD if held is None else held, PATIENCE, SHORT_PATIENCE)

    def __len__(self) -> int:
        return len(self._turns)

    async def receive(self, context: Context) -> Any:
        """Receive the request of the call of this task; the call is refused if it does not come."""
        try:
            request = await self._turns.work(holder_of(context.peer()), context.read)
        except grpc.aio.InternalError:  # the client is gone; gRPC would print a traceback
            raise asyncio.CancelledError from None
        except GivenUpError:
            await _refuse(
                context,
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"cannot wait any longer for the rest of the request: {self._turns.most} are being received "
                "and others wait; send it at once, or ask again later",
            )
            raise
        if request is grpc.aio.EOF:
            await _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "cannot answer a call without a request")
        return request


def holder_of(peer: str) -> Holder:
    """Return the client that gRPC names so; those of a Unix socket cannot be told apart."""
    return Holder(peer.rpartition(":")[0], peer)


async def _refuse(context: Context, code: grpc.StatusCode, reason: str) -> None:
    """Abort a call, whose client may be gone."""
    try:
        await context.abort(code, reason)
    except grpc.aio.InternalError:
        raise asyncio.CancelledError from None
