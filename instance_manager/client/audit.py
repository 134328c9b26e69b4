"""AuditService: the audit trail."""

from datetime import datetime

from instance_manager.client.channel import Channel
from instance_manager.pb.instance_manager.v1 import audit_pb2 as pb


class AuditCalls(Channel):
    """The methods of AuditService."""

    async def audit(self, *, since_time: datetime | None = None, limit: int = 0) -> pb.AuditResponse:
        """Return the recorded calls of methods that change something, oldest first.

        Args:
            since_time: only calls that ended at or after this time; without a time zone it is UTC.
            limit: only the last `limit` calls; 0 for all.
        """
        request = pb.AuditRequest(limit=limit)
        if since_time is not None:
            request.since.FromDatetime(since_time)
        return await self._unary("instance_manager.v1.AuditService/List", request, pb.AuditResponse)
