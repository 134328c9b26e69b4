"""The SPDK service over gRPC: the instances of the v2 data engine."""

from instance_manager.adapters.spdk.channel import SpdkChannel, Timeouts
from instance_manager.adapters.spdk.connection import SpdkConnection
from instance_manager.adapters.spdk.service import SpdkService
from instance_manager.adapters.spdk.watch import SpdkWatch

__all__ = ["SpdkChannel", "SpdkConnection", "SpdkService", "SpdkWatch", "Timeouts"]
