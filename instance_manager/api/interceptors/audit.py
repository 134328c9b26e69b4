"""The audit trail: every call of a method that changes something, whatever came of it.

A setting that is set again to what it is leaves no entry: managers do so all the time.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

import grpc

from instance_manager.api.caller import Callers
from instance_manager.api.interceptors.call import Call, Handler
from instance_manager.api.interceptors.metrics import code_name
from instance_manager.api.service import Method
from instance_manager.app.audit import AuditTrail


@dataclass(frozen=True, slots=True)
class AuditInterceptor:
    """Records the calls that change something."""

    trail: AuditTrail
    callers: Callers

    def wrap(self, method: Method, handler: Handler) -> Handler:
        """Record a method if it changes something."""
        if not method.changes:
            return handler

        settings: dict[object, bytes] = {}
        """The last request that succeeded, by the data engine whose setting it is."""

        async def audited(call: Call) -> None:
            # Now, because at the end the caller may be gone.
            caller = self.callers.who(call.context)
            code: str | None = None
            try:
                await handler(call)
            except asyncio.CancelledError:
                # The caller has disconnected; what it asked for is completed, see `Replacer`.
                code = grpc.StatusCode.CANCELLED.name
                raise
            finally:
                code = code or code_name(call.context.code())
                if not (method.sets and _is_unchanged(call, code, settings)):
                    name, uuid = _subject(call)
                    self.trail.add(
                        method=method.full_name,
                        name=name,
                        uuid=uuid,
                        caller=caller,
                        code=code,
                        detail=_text(call.context.details()),
                    )

        return audited


def _is_unchanged(call: Call, code: str, settings: dict[object, bytes]) -> bool:
    """Return whether a call has set what was set so already; remembers it."""
    engine = getattr(call.request, "data_engine", None)
    before = settings.get(engine)
    if code == grpc.StatusCode.OK.name:
        settings[engine] = call.raw
    return code == grpc.StatusCode.OK.name and before == call.raw


def _subject(call: Call) -> tuple[str, str]:
    """Return the name and the UUID of what a call was about, empty if unknown."""
    request, status = call.request, getattr(call.response, "status", None)
    # Of what is asked of an engine, the engine: a name of its own would be that of a snapshot.
    engine = getattr(getattr(request, "proxy_engine_request", None), "engine_name", "")
    name = engine or getattr(request, "name", "") or getattr(getattr(request, "spec", None), "name", "")
    name = name or getattr(request, "engine_name", "")
    uuid = getattr(status, "uuid", "") or getattr(request, "uuid", "")
    return str(name), str(uuid)


def _text(details: Any) -> str:
    return details.decode(errors="replace") if isinstance(details, bytes) else str(details or "")
