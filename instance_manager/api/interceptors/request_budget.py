"""The budget of requests: bytes of those that wait for their turn, or for whom they ask something of.

An engine or an SPDK service that hangs answers nothing for minutes, and what it is asked stays in memory.
"""

from instance_manager.api.interceptors.budget import ByteBudget
from instance_manager.api.interceptors.call import Call, Handler
from instance_manager.api.interceptors.rejection_log import RejectionLog
from instance_manager.api.service import Method

MAX_REQUEST_BYTES_HELD = 24 << 20
"""Largest number of bytes of requests of all clients; each byte is in memory up to six times."""
MAX_REQUEST_BYTES_HELD_PER_CLIENT = 6 << 20
"""Of a single client; all that come over Unix sockets are one."""
SMALL = 4 << 10
"""Bytes of a request that is always taken: the number of calls bounds those."""


class RequestBudget(ByteBudget):
    """Counts the requests that are not small, from their arrival to the end of their calls."""

    def __init__(self) -> None:
        super().__init__(
            MAX_REQUEST_BYTES_HELD,
            MAX_REQUEST_BYTES_HELD_PER_CLIENT,
            "cannot take a request of {size} bytes: {who} requests of {taken} bytes in progress and {most} "
            "is the most there may be; ask again when they are answered",
        )


class RequestBudgetInterceptor:
    """Lets a call go on only if the budget has room for its request."""

    def __init__(self, budget: RequestBudget, rejections: RejectionLog) -> None:
        self._budget = budget
        self._rejections = rejections

    def wrap(self, method: Method, handler: Handler) -> Handler:  # noqa: ARG002 - all methods alike
        """Count the requests of a method."""

        async def counted(call: Call) -> None:
            client, size = call.context.peer(), call.size
            if size <= SMALL:
                await handler(call)
                return
            with self._rejections.noting():
                self._budget.take(client, size)
            try:
                await handler(call)
            finally:
                self._budget.give_back(client, size)

        return counted
