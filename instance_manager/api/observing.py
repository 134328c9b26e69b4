"""Observing every call, including refused ones; durations include the wait for a turn."""

import asyncio
import time
from typing import Any, Protocol

import grpc

from instance_manager.api.methods import Context

_CODE_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


class MethodObserver(Protocol):
    """Observes the calls of one method."""

    def begun(self) -> None:
        """Note that a call has started."""

    def ended(self, code: str, seconds: float) -> None:
        """Note that a call has ended, with the name of its status code and its duration."""


class CallObserver(Protocol):
    """Observes the calls of all methods."""

    def method(self, service: str, method: str, *, streaming: bool) -> MethodObserver:
        """Return the observer of one method."""


class Unobserved:
    """A `CallObserver` that ignores everything."""

    def method(self, service: str, method: str, *, streaming: bool) -> MethodObserver:
        """Return this observer."""
        del service, method, streaming
        return self

    def begun(self) -> None:
        """Do nothing."""

    def ended(self, code: str, seconds: float) -> None:
        """Do nothing."""


def observed(call: Any, observer: MethodObserver) -> Any:
    """Return a call that reports to an observer."""

    async def told(raw: bytes, context: Context) -> Any:
        begun = time.perf_counter()
        observer.begun()
        code: str | None = None
        try:
            return await call(raw, context)
        except asyncio.CancelledError:
            code = grpc.StatusCode.CANCELLED.name
            raise
        finally:
            observer.ended(code or code_name(context.code()), time.perf_counter() - begun)

    return told


def code_name(code: Any) -> str:
    """Return the name of a status, given as a number, a `StatusCode`, or None for OK."""
    if isinstance(code, grpc.StatusCode):
        return code.name
    return _CODE_NAMES.get(code or 0, str(code))
