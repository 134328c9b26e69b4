"""A call on its way through the interceptors."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from google.protobuf.message import Message

from instance_manager.api.service import Context, Method
from instance_manager.core.errors import InstanceManagerError


@dataclass(slots=True)
class Call:
    """A call of one of the daemon's own methods."""

    context: Context
    arrived: bool = False
    """Whether the request has come."""
    size: int = 0
    """What it counts as, in bytes, see `size_of`."""
    digest: bytes = b""
    """Of its bytes, by which the same one is known again."""
    request: Message | None = None
    """None until it has come, and if it cannot be parsed."""
    unreadable: InstanceManagerError | None = None
    """Why it cannot."""
    response: Message | bytes | None = None
    """What the method has returned; None until then, and for streams."""
    reply: bytes = b""
    """The response, serialized."""

    def forget_request(self) -> None:
        """Free what the request takes; an error may keep the call itself for a while."""
        self.request = None


Handler: TypeAlias = Callable[[Call], Awaitable[None]]


class Interceptor(Protocol):
    """One link of the chain in front of every method."""

    def wrap(self, method: Method, handler: Handler) -> Handler:
        """Return a handler that does this link's part around another one, or that one if it has none.

        Called once for each method.
        """
