"""Who is told about every call: refused ones count too, and so does the time that one waits for its turn."""

import asyncio
import time
from typing import Any, Protocol

import grpc

from instance_manager.api.methods import Context

_CODE_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


class MethodObserver(Protocol):
    """Is told about every call of one method."""

    def begun(self) -> None:
        """Take note that a call has begun."""

    def ended(self, code: str, seconds: float) -> None:
        """Take note that a call has ended, with the name of a status code, after so many seconds."""


class CallObserver(Protocol):
    """Is told about every call of every method."""

    def method(self, service: str, method: str, *, streaming: bool) -> MethodObserver:
        """Return what is told about the calls of one method."""


class Unobserved:
    """A `CallObserver` that takes note of nothing."""

    def method(self, service: str, method: str, *, streaming: bool) -> MethodObserver:
        """Return this very observer."""
        del service, method, streaming
        return self

    def begun(self) -> None:
        """Do nothing."""

    def ended(self, code: str, seconds: float) -> None:
        """Do nothing."""


def observed(call: Any, observer: MethodObserver) -> Any:
    """Return a call that an observer is told about."""

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
    """Return the name of a status: a number, a `StatusCode`, or nothing if all is well."""
    if isinstance(code, grpc.StatusCode):
        return code.name
    return _CODE_NAMES.get(code or 0, str(code))
