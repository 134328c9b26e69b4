"""The budget of answers: bytes that are handed to gRPC and that clients have not taken yet."""

from typing import Any

from instance_manager.api.interceptors.budget import ByteBudget
from instance_manager.api.interceptors.call import Call, Handler
from instance_manager.api.interceptors.rejection_log import RejectionLog
from instance_manager.api.service import Method

MAX_UNSENT_BYTES = 128 << 20
"""Largest number of bytes of answers that all clients together have not taken yet."""
MAX_UNSENT_BYTES_PER_CLIENT = 24 << 20
"""Of a single client; all that come over Unix sockets are one."""
_COPIES = 4
"""Times that a message of a stream is in memory: as it was read, as text, serialized, in gRPC."""
_CHANGE_BYTES = 160 << 10
"""More than the answer to a change can have: the longest command line, names and error."""
_EMPTY_BYTES = 4 << 10
"""The same if there is nothing in the answer but, if the change fails, its error."""


class AnswerBudget(ByteBudget):
    """Counts the bytes of answers."""

    def __init__(self) -> None:
        super().__init__(
            MAX_UNSENT_BYTES,
            MAX_UNSENT_BYTES_PER_CLIENT,
            "cannot answer with {size} bytes more: {who} {taken} bytes still to read and {most} is the most "
            "there may be; read them, or ask for less at once",
        )


class AnswerBudgetInterceptor:
    """Hands an answer, or a message of a stream, to gRPC only if the budget has room for it."""

    def __init__(self, budget: AnswerBudget, rejections: RejectionLog) -> None:
        self._budget = budget
        self._rejections = rejections

    def wrap(self, method: Method, handler: Handler) -> Handler:
        """Count the answers of a method."""
        if method.streaming:
            return self._streaming(handler)
        return self._changing(method, handler) if method.changes else self._reading(handler)

    def _take(self, client: str, size: int) -> None:
        with self._rejections.noting():
            self._budget.take(client, size)

    def _until_sent(self, call: Call, client: str, size: int) -> None:
        context: Any = call.context
        context.add_done_callback(lambda _: self._budget.give_back(client, size))

    def _reading(self, handler: Handler) -> Handler:
        async def counted(call: Call) -> None:
            await handler(call)
            client, size = call.context.peer(), len(call.reply)
            self._take(client, size)
            self._until_sent(call, client, size)

        return counted

    def _changing(self, method: Method, handler: Handler) -> Handler:
        """Take the bytes before anything is changed: a change that was made must not look refused.

        They are held for as long as it takes, which may be a day: no more of them than an answer can need.
        """
        most = _CHANGE_BYTES if method.descriptor.output_type.fields else _EMPTY_BYTES

        async def counted(call: Call) -> None:
            client, size = call.context.peer(), 0
            self._take(client, most)
            try:
                await handler(call)
                size = min(len(call.reply), most)
            finally:
                self._budget.give_back(client, most - size)
            self._until_sent(call, client, size)

        return counted

    def _streaming(self, handler: Handler) -> Handler:
        async def counted(call: Call) -> None:
            call.context = _CountedContext(call.context, self)  # type: ignore[assignment]
            await handler(call)

        return counted

    async def write(self, context: Any, message: bytes) -> None:
        """Write a message of a stream; its bytes are taken until the client's flow control accepts them."""
        client, size = context.peer(), _COPIES * len(message)
        self._take(client, size)
        try:
            await context.write(message)
        finally:
            self._budget.give_back(client, size)


class _CountedContext:
    """The context of a stream whose messages are counted."""

    def __init__(self, context: Any, interceptor: AnswerBudgetInterceptor) -> None:
        self._context = context
        self._interceptor = interceptor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def write(self, message: bytes) -> None:
        await self._interceptor.write(self._context, message)
