"""The budget of what engines and SPDK services answer: bytes that are kept until a call is answered.

Of several that are asked for one call, one may hang while the answers of the others wait for it.
"""

from instance_manager.api.interceptors.arrivals import holder_of
from instance_manager.api.interceptors.budget import ByteBudget
from instance_manager.api.interceptors.call import Call, Handler
from instance_manager.api.service import Method
from instance_manager.platform.caller import CALLER, Caller

MAX_BYTES = 32 << 20
"""Largest number of bytes for the calls of all clients; in memory they take about four times as much."""
MAX_BYTES_PER_CLIENT = 8 << 20
"""Of a single client; all that come over Unix sockets are one."""


class UpstreamBudget(ByteBudget):
    """Counts the answers that are not small, until the calls that they are for are answered."""

    def __init__(self) -> None:
        super().__init__(
            MAX_BYTES,
            MAX_BYTES_PER_CLIENT,
            "cannot take an answer of {size} bytes: {who} calls in progress for which {taken} bytes came "
            "already and {most} is the most there may be; ask again when they have ended",
        )


class UpstreamBudgetInterceptor:
    """Says on whose account an answer is."""

    def __init__(self, budget: UpstreamBudget) -> None:
        self._budget = budget

    def wrap(self, method: Method, handler: Handler) -> Handler:
        """Count for the calls of a method, unless it streams."""
        if method.streaming:
            return handler

        async def counted(call: Call) -> None:
            client = call.context.peer()
            caller = Caller(
                holder_of(client),
                lambda size: self._budget.take(client, size),
                lambda size: self._budget.give_back(client, size),
            )
            CALLER.set(caller)
            try:
                await handler(call)
            finally:
                caller.release()

        return counted
