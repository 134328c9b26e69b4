"""A call on its way through the interceptors."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from google.protobuf.message import Message

from instance_manager.api.service import Context, Method


@dataclass(slots=True)
class Call:
    """A call of one of the daemon's own methods."""

    context: Context
    raw: bytes = b""
    """The request as it came."""
    arrived: bool = False
    """Whether the request has come."""
    request: Message | None = None
    """None until it has come, and if it cannot be parsed."""
    malformed: str = ""
    """Why it cannot."""
    response: Message | bytes | None = None
    """What the method has returned; None until then, and for streams."""
    reply: bytes = b""
    """The response, serialized."""


Handler: TypeAlias = Callable[[Call], Awaitable[None]]


class Interceptor(Protocol):
    """One link of the chain in front of every method."""

    def wrap(self, method: Method, handler: Handler) -> Handler:
        """Return a handler that does this link's part around another one, or that one if it has none.

        Called once for each method.
        """
