"""The audit trail: every call of a method that changes something, whatever came of it.

A setting that is set again to what it is, or refused again, leaves no entry: managers do so all the time.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

import grpc

from instance_manager.api.caller import Callers
from instance_manager.api.interceptors.call import Call, Handler
from instance_manager.api.interceptors.errors import MAX_REASON_BYTES
from instance_manager.api.interceptors.metrics import code_name
from instance_manager.api.service import Method
from instance_manager.api.subject import subject_of, task_error
from instance_manager.app.audit import AuditTrail
from instance_manager.core.errors import shorten

MOST_SETTINGS = 16
"""More than there are data engines; callers may name others."""
_ABOUT_THE_CALLER = {"CANCELLED", "PERMISSION_DENIED", "UNAUTHENTICATED"}
"""Codes of which each entry says something of its own: who was refused, or does not know what came of it."""


@dataclass(frozen=True, slots=True)
class AuditInterceptor:
    """Records the calls that change something."""

    trail: AuditTrail
    callers: Callers

    def wrap(self, method: Method, handler: Handler) -> Handler:
        """Record a method if it changes something."""
        if not method.changes:
            return handler

        latest = LatestSettings()

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
                if not (method.sets and latest.repeats(call, code)):
                    name, uuid = _subject(call)
                    self.trail.add(
                        method=method.full_name,
                        name=name,
                        uuid=uuid,
                        caller=caller,
                        code=code,
                        detail=shorten(
                            _text(call.context.details()) or task_error(call.response), MAX_REASON_BYTES
                        ),
                        subject=subject_of(call.request),
                    )

        return audited


class LatestSettings:
    """The latest calls of a method that sets something: for each engine a success and a failure."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, bool], tuple[bytes, str]] = {}
        """Digest of the request, and code, by the data engine and whether it succeeded."""

    def __len__(self) -> int:
        """Return how many calls are remembered."""
        return len(self._known)

    def repeats(self, call: Call, code: str) -> bool:
        """Return whether the same request has had this outcome the last time; remembers it."""
        if code in _ABOUT_THE_CALLER or not call.arrived:
            return False
        engine, succeeded = getattr(call.request, "data_engine", None), code == grpc.StatusCode.OK.name
        outcome = call.digest, code
        before, other = self._known.get((engine, succeeded)), self._known.get((engine, not succeeded))
        if other and other[0] == outcome[0]:
            del self._known[engine, not succeeded]
        if before is None and len(self._known) >= MOST_SETTINGS:
            self._known.clear()
        self._known[engine, succeeded] = outcome
        return before == outcome


def _subject(call: Call) -> tuple[str, str]:
    """Return the name and the UUID of what a call was about, empty if unknown."""
    request, status = call.request, getattr(call.response, "status", None)
    # Of what is asked of an engine, the engine: a name of its own would be that of a snapshot.
    engine = getattr(getattr(request, "proxy_engine_request", None), "engine_name", "")
    name = engine or getattr(request, "name", "") or getattr(getattr(request, "spec", None), "name", "")
    for field in ("engine_name", "replcia_instance_name", "disk_name"):
        name = name or getattr(request, field, "")
    uuid = getattr(status, "uuid", "") or getattr(request, "uuid", "")
    return str(name), str(uuid)


def _text(details: Any) -> str:
    return details.decode(errors="replace") if isinstance(details, bytes) else str(details or "")
