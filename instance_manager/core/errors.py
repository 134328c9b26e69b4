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
    """What was asked for is not allowed here, whoever asks."""


class OutOfRangeError(InstanceManagerError):
    """What was asked for is no longer, or not yet, known."""


class DeadlineExceededError(InstanceManagerError):
    """A process did not get ready in the time it was given."""


class UnavailableError(InstanceManagerError):
    """The daemon is ending; ask the next one."""


class UnimplementedError(InstanceManagerError):
    """The data engine cannot do what is asked for, whatever its state."""


class UpstreamError(InstanceManagerError):
    """Another service that a request was passed on to has refused it, or did not answer."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        """Name of the gRPC status code that the other service gave, for example `NOT_FOUND`."""


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
