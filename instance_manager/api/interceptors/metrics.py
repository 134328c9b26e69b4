"""Observing every call, including refused ones; durations include the time in the queue."""

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Protocol

import grpc

from instance_manager.api.interceptors.call import Call, Handler
from instance_manager.api.service import Method

_CODE_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


class MethodObserver(Protocol):
    """Observes the calls of one method."""

    def on_started(self) -> None:
        """Note that a call has started."""

    def on_ended(self, code: str, seconds: float) -> None:
        """Note that a call has ended, with the name of its status code and its duration."""


class CallObserver(Protocol):
    """Observes the calls of all methods."""

    def method(self, service: str, method: str, *, streaming: bool) -> MethodObserver:
        """Return the observer of one method."""


@dataclass(frozen=True, slots=True)
class MetricsInterceptor:
    """Reports every call to an observer."""

    observer: CallObserver

    def wrap(self, method: Method, handler: Handler) -> Handler:
        """Observe a method."""
        observer = self.observer.method(method.service, method.descriptor.name, streaming=method.streaming)

        async def observed(call: Call) -> None:
            started = time.perf_counter()
            observer.on_started()
            code: str | None = None
            try:
                await handler(call)
            except asyncio.CancelledError:
                code = grpc.StatusCode.CANCELLED.name
                raise
            finally:
                observer.on_ended(code or code_name(call.context.code()), time.perf_counter() - started)

        return observed


def code_name(code: Any) -> str:
    """Return the name of a status, given as a number, a `StatusCode`, or None for OK."""
    if isinstance(code, grpc.StatusCode):
        return code.name
    return _CODE_NAMES.get(code or 0, str(code))
