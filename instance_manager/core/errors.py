"""The errors a caller can cause, each with a message that says what to do next.

The API maps every class to one gRPC status code; the command line maps the code to an exit status.
"""

import itertools
from collections.abc import Callable


class InstanceManagerError(Exception):
    """Base of every error whose message is meant for the caller."""


class InvalidArgumentError(InstanceManagerError):
    """The request itself is wrong; the same request will never succeed."""


class NotFoundError(InstanceManagerError):
    """No process has this name, or the one that has it has another UUID."""


class AlreadyExistsError(InstanceManagerError):
    """The name is taken, or what was to be replaced has changed meanwhile."""


class ResourceExhaustedError(InstanceManagerError):
    """A limit of the machine or of the daemon is reached: ports, processes, descriptors, memory."""


class FailedPreconditionError(InstanceManagerError):
    """The state of the process does not allow the request."""


class PermissionDeniedError(InstanceManagerError):
    """The daemon's configuration does not allow the request, whoever makes it."""


class OutOfRangeError(InstanceManagerError):
    """The revision asked for is no longer, or not yet, known."""


class DeadlineExceededError(InstanceManagerError):
    """A process was not ready in time, or a request had to wait too long."""


class UnavailableError(InstanceManagerError):
    """The daemon is shutting down; ask the next one."""


class UnimplementedError(InstanceManagerError):
    """The data engine does not support the request at all."""


class UpstreamError(InstanceManagerError):
    """The service that a request was forwarded to has refused it, or did not answer."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        """Name of the gRPC status code that the other service gave, for example `NOT_FOUND`."""

    @property
    def is_silence(self) -> bool:
        """Whether nobody has answered: the other service is away or took too long, or says so of another."""
        return self.code in {"UNAVAILABLE", "DEADLINE_EXCEEDED"}


_ELLIPSIS = "…"


def shorten(text: str, most: int, cost: Callable[[int], int] = lambda _: 1) -> str:
    """Return a text that costs at most `most`; what is too long loses its middle, for an ellipsis.

    Args:
        text: which one.
        most: the bound.
        cost: what a byte of the text in UTF-8 costs, at least 1.
    """
    data = text.encode(errors="backslashreplace")
    if len(data) <= most and sum(map(cost, data)) <= most:
        return text
    room = most - sum(map(cost, _ELLIPSIS.encode()))
    head = data[: _fitting(data, room // 2, cost)]
    tail = data[len(data) - _fitting(data[::-1], room - room // 2, cost) :]
    return f"{head.decode(errors='ignore')}{_ELLIPSIS}{tail.decode(errors='ignore')}"


def _fitting(data: bytes, room: int, cost: Callable[[int], int]) -> int:
    """Return how many bytes from the beginning cost at most `room`."""
    for count, spent in enumerate(itertools.accumulate(map(cost, data))):
        if spent > room:
            return count
    return len(data)


MALFORMED = (
    ArithmeticError,
    AttributeError,
    InvalidArgumentError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What decoding text from a journal or an environment may raise, which may hold anything."""
