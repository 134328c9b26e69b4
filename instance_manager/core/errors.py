"""The errors a caller can cause, each with a message that says what to do next.

The API maps every class to one gRPC status code; the command line maps the code to an exit status.
"""


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


def shorten(text: str, most: int) -> str:
    """Return a text of at most `most` bytes in UTF-8; what is too long loses its middle, for an ellipsis."""
    data = text.encode(errors="backslashreplace")
    if len(data) <= most:
        return text
    head, cut = (most - 3) // 2, len(data) - most + 3  # the ellipsis has three bytes
    return f"{data[:head].decode(errors='ignore')}…{data[head + cut :].decode(errors='ignore')}"


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
