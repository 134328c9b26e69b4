"""The check of client certificates: a client calls only if its certificate carries the peer name."""

import grpc
import grpc.aio

from instance_manager.api.caller import Callers, certificate_names
from instance_manager.api.interceptors.call import Call, Handler
from instance_manager.api.interceptors.rejection_log import RejectionLog
from instance_manager.api.service import Context, Method
from instance_manager.core.certificates import join_names, matches_name


class PeerNameInterceptor:
    """Lets a call pass only if the client's certificate carries the peer name."""

    def __init__(self, peer_name: str) -> None:
        self._peer_name = peer_name
        self._rejections = RejectionLog("call refused: wrong name")

    def wrap(self, method: Method, handler: Handler) -> Handler:
        """Check the callers of a method."""
        del method

        async def checked(call: Call) -> None:
            await self.check(call.context)
            await handler(call)

        return checked

    async def check(self, context: Context) -> None:
        """Abort the call of a client whose certificate has another name."""
        names = certificate_names(context)
        if matches_name(names, self._peer_name):
            return
        self._rejections.add(lambda: {"caller": Callers().who(context), "names": names})
        await context.abort(
            grpc.StatusCode.PERMISSION_DENIED,
            f"cannot serve a client whose certificate names {join_names(names)} and not {self._peer_name}; "
            "use one with that name, or start the daemon with another --tls-peer-name",
        )
