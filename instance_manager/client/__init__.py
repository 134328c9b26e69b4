"""A typed, asynchronous client of the instance manager, for the command line, other programs and tests.

    async with Client("tcp://localhost:8500") as client:
        await client.process_create(ProcessSpec(name="r1", binary="/usr/bin/sleep", args=["100"]))
        async for change in client.process_watch():
            print(change.spec.name, change.status.state)

Every call raises `grpc.aio.AioRpcError` with the daemon's status code and message. If the daemon requires
certificates, use `Client(url, tls)`. See docs/client.md for more.
"""

from instance_manager.client.channel import DEFAULT_TIMEOUT, LOST, Stream, address_of
from instance_manager.client.client import Client
from instance_manager.client.event_stream import EventStream, Gap, Position, StreamItem
from instance_manager.client.processes import REPLACE_TIMEOUT
from instance_manager.core.instance import DataEngine

__all__ = [
    "DEFAULT_TIMEOUT",
    "LOST",
    "REPLACE_TIMEOUT",
    "Client",
    "DataEngine",
    "EventStream",
    "Gap",
    "Position",
    "Stream",
    "StreamItem",
    "address_of",
]
