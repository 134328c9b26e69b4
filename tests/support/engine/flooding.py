"""What says that it is an engine, and answers with more bytes than any engine, or with a part of them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from google.protobuf.message import Message

from instance_manager.pb.ptypes import controller_pb2, replica_pb2
from tests.support.http2 import message

_HEADERS = [(":status", "200"), ("content-type", "application/grpc")]
Answer = Callable[[str], tuple[bytes, int] | None]
"""Takes the path of a call; returns a message and how much of it is sent; None for no answer at all."""


class _Connection(asyncio.Protocol):
    def __init__(self, answer: Answer, open_ones: set[asyncio.Transport]) -> None:
        self._answer = answer
        self._open_ones = open_ones
        self._paths: dict[int, str] = {}
        self._left: dict[int, tuple[bytes, int, int]] = {}
        """By stream: the answer, how much of it was sent, and how much of it will be."""
        self._http2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._open_ones.add(transport)
        self._http2.initiate_connection()
        transport.write(self._http2.data_to_send())

    def connection_lost(self, _: Exception | None) -> None:
        self._open_ones.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        for event in self._http2.receive_data(data):
            match event:
                case h2.events.RequestReceived(stream_id=int(stream)):
                    headers = {bytes(name): bytes(value) for name, value in event.headers}
                    self._paths[stream] = headers[b":path"].decode()
                case h2.events.StreamEnded(stream_id=int(stream)):
                    self._begin(stream)
                case h2.events.StreamReset(stream_id=int(stream)):
                    self._left.pop(stream, None)
        for stream in tuple(self._left):
            with contextlib.suppress(h2.exceptions.ProtocolError):
                self._send(stream)
        self._transport.write(self._http2.data_to_send())

    def _begin(self, stream: int) -> None:
        answer = self._answer(self._paths.pop(stream))
        if answer is not None:
            content, most = message(answer[0]), answer[1]
            self._http2.send_headers(stream, _HEADERS)
            self._left[stream] = content, 0, min(most, len(content))

    def _send(self, stream: int) -> None:
        """Send as much of an answer as the other side takes now."""
        content, sent, most = self._left[stream]
        while sent < most:
            window = self._http2.local_flow_control_window(stream)
            size = min(window, self._http2.max_outbound_frame_size, most - sent)
            if size <= 0:
                self._left[stream] = content, sent, most
                return
            self._http2.send_data(stream, content[sent : sent + size])
            sent += size
        del self._left[stream]
        if sent == len(content):
            self._http2.send_headers(stream, [("grpc-status", "0")], end_stream=True)


@contextlib.asynccontextmanager
async def _listening(answer: Answer) -> AsyncIterator[str]:
    loop, connections = asyncio.get_running_loop(), set[asyncio.Transport]()
    server = await loop.create_server(lambda: _Connection(answer, connections), "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        while connections:
            connections.pop().abort()
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def flooding_engine(size: int, *, whole: bool) -> AsyncIterator[str]:
    """Answer with so many bytes, or with half of them and nothing more; yields the address.

    It has two replicas, itself and one that never answers.
    """
    head = "volume-head-000.img"
    disk = replica_pb2.DiskInfo(name=head, labels={"l": "x" * size})
    told: dict[str, Message] = {
        "ReplicaGet": replica_pb2.ReplicaGetResponse(
            replica=replica_pb2.Replica(size="1", disks={head: disk})
        )
    }

    def answer(path: str) -> tuple[bytes, int] | None:
        method = path.rpartition("/")[2]
        if method == "ReplicaList":
            content = replicas.SerializeToString()
            return content, len(content) + 5
        content = told[method].SerializeToString() if method in told else _unknown_field(size)
        return content, len(content) + 5 if whole else len(content) // 2

    async with _listening(answer) as address, _listening(lambda _: None) as silent:
        replicas = controller_pb2.ReplicaListReply(
            replicas=[
                controller_pb2.ControllerReplica(
                    address=controller_pb2.ReplicaAddress(address=f"tcp://{each}"),
                    mode=controller_pb2.ReplicaMode.RW,
                )
                for each in (address, silent)
            ]
        )
        yield address


def _unknown_field(size: int) -> bytes:
    """Return a message that any method may have answered: with a field that is not known, and kept."""
    length = bytearray()
    left = size
    while left > 127:
        length.append(left & 127 | 128)
        left >>= 7
    return b"\xfa\xff\x7f" + bytes([*length, left]) + b"x" * size
