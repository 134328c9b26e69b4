"""The check of client certificates: a client calls only if its certificate carries the peer name."""

import time
from collections.abc import Callable

import grpc
import grpc.aio

from instance_manager.api.caller import Callers, certificate_holder, printable
from instance_manager.api.interceptors.call import Call, Handler
from instance_manager.api.interceptors.rejection_log import RejectionLog
from instance_manager.api.service import Context, Method
from instance_manager.core.certificates import format_utc, join_names, matches_name
from instance_manager.core.x509 import Holder

_CONNECTIONS = 4096
"""Connections remembered: more than there may be at once."""


class PeerNameInterceptor:
    """Lets a call pass only if the client's certificate carries the peer name, and has not expired.

    A handshake that resumes a TLS session does not look at dates, so they are looked at here: once for each
    connection, as those that were open when a certificate expired stay open. Connections to a Unix socket
    cannot be told apart; there, each call is checked.
    """

    def __init__(self, peer_name: str, now: Callable[[], float] = time.time) -> None:
        self._peer_name = peer_name
        self._now = now
        self._known: dict[tuple[str, Holder], None] = {}
        """Connections that began with a valid certificate, the oldest first."""
        self._rejections = RejectionLog("call refused: certificate")

    def wrap(self, method: Method, handler: Handler) -> Handler:
        """Check the callers of a method."""
        del method

        async def checked(call: Call) -> None:
            await self.check(call.context)
            await handler(call)

        return checked

    async def check(self, context: Context) -> None:
        """Abort the call of a client whose certificate has another name, or has expired."""
        holder = certificate_holder(context)
        names = holder.names if holder else ()
        if holder is None or not matches_name(names, self._peer_name):
            shown = [printable(name) for name in names]
            problem = (
                f"names {join_names(shown)} and not {self._peer_name}; use one with that name, or start the "
                "daemon with another --tls-peer-name"
            )
        elif not self._is_valid(context.peer(), holder):
            problem = f"expired on {format_utc(holder.not_after)}; connect with a new one"
        else:
            return
        self._rejections.add(
            lambda: {"caller": Callers().who(context), "names": [printable(name) for name in names]}
        )
        await context.abort(
            grpc.StatusCode.PERMISSION_DENIED, f"cannot serve a client whose certificate {problem}"
        )

    def _is_valid(self, peer: str, holder: Holder) -> bool:
        connection = peer, holder
        if self._now() > holder.not_after:
            return connection in self._known
        if not peer.startswith("unix") and connection not in self._known:
            self._known[connection] = None
            if len(self._known) > _CONNECTIONS:
                del self._known[next(iter(self._known))]
        return True
