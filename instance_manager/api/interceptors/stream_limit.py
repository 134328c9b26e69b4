"""The limit on open streams: a watch that lags takes memory, a log takes a descriptor."""

from collections.abc import Iterator
from contextlib import contextmanager

from instance_manager.api.interceptors.call import Call, Handler
from instance_manager.api.interceptors.rejection_log import RejectionLog
from instance_manager.api.service import Method
from instance_manager.core.errors import ResourceExhaustedError

DEFAULT_MAX_STREAMS = 1000


class StreamLimit:
    """Counts the open streams of all services, and rejects one more than there may be."""

    def __init__(self, max_streams: int, rejections: RejectionLog) -> None:
        self._max_streams = max_streams
        self._rejections = rejections
        self._open = 0

    def wrap(self, method: Method, handler: Handler) -> Handler:
        """Limit a method if it streams."""
        return self._limited(handler) if method.streaming else handler

    def _limited(self, handler: Handler) -> Handler:
        async def limited(call: Call) -> None:
            with self.opened():
                await handler(call)

        return limited

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Count a stream that is open for the duration of the block.

        Raises:
            ResourceExhaustedError: if there are too many.
        """
        if self._open >= self._max_streams:
            reason = (
                f"cannot open another stream: {self._open} watches and logs are being streamed and "
                f"--max-streams is {self._max_streams}; end some or raise it"
            )
            self._rejections.add(lambda: {"reason": reason})
            raise ResourceExhaustedError(reason)
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1
