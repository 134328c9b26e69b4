"""The health service: gRPC's, and with a list of all that it reports."""

from typing import Any

from grpc_health.v1 import health, health_pb2

_messages: Any = health_pb2  # whose published types lack those of the list


class Health(health.aio.HealthServicer):
    """Health of the daemon as a whole, of its services, and of parts that have a name of their own."""

    def __init__(self) -> None:
        super().__init__()
        self._names: dict[str, None] = {"": None}
        self._ending = False

    async def set(self, service: str, status: Any) -> None:
        """Set the status of a name; does nothing after the beginning of the shutdown."""
        await super().set(service, status)
        if not self._ending:
            self._names[service] = None

    async def enter_graceful_shutdown(self) -> None:
        """Say NOT_SERVING for each name from now on."""
        self._ending = True
        await super().enter_graceful_shutdown()

    async def List(self, _: Any, context: Any) -> Any:  # noqa: N802 - gRPC's
        """Return the status of each name."""
        asked = [health_pb2.HealthCheckRequest(service=name) for name in self._names]
        statuses = {each.service: await self.Check(each, context) for each in asked}
        return _messages.HealthListResponse(statuses=statuses)
