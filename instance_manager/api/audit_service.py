"""AuditService: the audit trail over gRPC."""

from instance_manager.api.service import Service, rpc
from instance_manager.app.audit import AuditEntry, AuditTrail
from instance_manager.core.errors import InvalidArgumentError
from instance_manager.pb.instance_manager.v1 import audit_pb2 as pb


class AuditService(Service):
    """The methods of AuditService."""

    descriptor = pb.DESCRIPTOR.services_by_name["AuditService"]

    def __init__(self, trail: AuditTrail) -> None:
        self._trail = trail

    @rpc("List")
    def list(self, request: pb.AuditRequest) -> pb.AuditResponse:
        """Return the latest calls of methods that change something."""
        if request.limit < 0:
            raise InvalidArgumentError(f"cannot use a limit of {request.limit}: it is 0, for all, or more")
        since = request.since.seconds + request.since.nanos / 1e9
        entries = self._trail.entries(since=since, limit=request.limit)
        return pb.AuditResponse(entries=map(_to_wire, entries), total=self._trail.number)


def _to_wire(entry: AuditEntry) -> pb.AuditEntry:
    message = pb.AuditEntry(
        number=entry.number,
        method=entry.method,
        name=entry.name,
        uuid=entry.uuid,
        caller=entry.caller,
        code=entry.code,
        detail=entry.detail,
        subject=entry.subject,
    )
    message.time.FromNanoseconds(int(entry.time * 1e9))
    return message
