"""What a service offers: its descriptor, and methods marked with `rpc`."""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import grpc.aio
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message

Context = grpc.aio.ServicerContext[Any, Any]
Unary = Callable[..., Message | bytes | Awaitable[Message | bytes]]
"""Takes the request, and `within` if it is marked so; returns the response, as a message or serialized."""
Stream = Callable[[Any, Context], Awaitable[None]]
"""Takes the request, and a context to write serialized messages to."""

MAX_REQUEST_BYTES = 256 << 10
"""A longer request is RESOURCE_EXHAUSTED. A command line has at most half of it."""
MAX_LARGE_REQUEST_BYTES = 1280 << 10
"""The same for methods that take large ones: a whole secret of Kubernetes, which has 1 MiB, and the rest."""
MAX_ENTRIES = 4096
"""Largest number of entries of all lists and maps of a request: each takes more memory than its bytes."""


@dataclass(frozen=True, slots=True)
class Marks:
    """What is to be known of a method; see `rpc`."""

    changes: bool = False
    sets: bool = False
    waits: bool = False
    large: bool = False


Offer = tuple[Unary | Stream, Marks]

_Function = TypeVar("_Function", bound=Callable[..., Any])
_MARK = "rpc"


def rpc(
    name: str, *, changes: bool = False, sets: bool = False, waits: bool = False, large: bool = False
) -> Callable[[_Function], _Function]:
    """Mark a `Unary` or `Stream` of a service as the method of this name.

    A method that `changes` something is audited, and goes before those that only read. If it `sets` something
    to a value, the same call once more changes nothing. A unary one that `waits` takes the seconds until the
    caller's deadline as `within`, None if there is no deadline. Only one that is `large` takes requests of
    more than `MAX_REQUEST_BYTES`.
    """

    def mark(function: _Function) -> _Function:
        function.__dict__[_MARK] = name, Marks(changes, sets, waits, large)
        return function

    return mark


@dataclass(frozen=True, slots=True)
class Method:
    """One method of a service."""

    descriptor: MethodDescriptor
    service: str
    """Full name of its service."""
    function: Unary | Stream
    changes: bool
    sets: bool
    waits: bool
    large: bool = False

    @property
    def full_name(self) -> str:
        """`SERVICE/METHOD`."""
        return f"{self.service}/{self.descriptor.name}"

    @property
    def streaming(self) -> bool:
        """Whether it streams its answer."""
        return bool(self.descriptor.server_streaming)


def most_bytes(method: Method) -> int:
    """Return how many bytes a request of a method may have."""
    return MAX_LARGE_REQUEST_BYTES if method.large else MAX_REQUEST_BYTES


class Service:
    """Base class of the services."""

    descriptor: ClassVar[ServiceDescriptor]

    def _offered(self) -> dict[str, Offer]:
        """Return the methods by name: those that are marked; a subclass may add others."""
        marked: dict[str, Offer] = {
            function.__dict__[_MARK][0]: (getattr(self, attribute), function.__dict__[_MARK][1])
            for attribute, function in vars(type(self)).items()
            if _MARK in getattr(function, "__dict__", ())
        }
        return marked

    def methods(self) -> Iterator[Method]:
        """Yield every method.

        Raises:
            TypeError: if those offered are not exactly those of the descriptor.
        """
        offered, known = self._offered(), self.descriptor.methods_by_name
        if offered.keys() != set(known):
            raise TypeError(f"{self.descriptor.full_name} has the methods {sorted(known)}")
        for method in self.descriptor.methods:
            function, marks = offered[method.name]
            yield Method(
                method,
                self.descriptor.full_name,
                function,
                marks.changes,
                marks.sets,
                marks.waits,
                marks.large,
            )

    @property
    def takes_large(self) -> bool:
        """Whether one of the methods takes large requests."""
        return any(method.large for method in self.methods())
