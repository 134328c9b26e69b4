"""One HTTP/2 connection that asks for health: grpc.health.v1 by hand, on h2.

Imported with the first byte a client sends, since h2 takes longer to load than all the rest: a stub that is
only probed for an open port never pays for it.
"""

import socket
from dataclasses import dataclass, field

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, RequestReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError

from instance_manager.stub.loop import READ, WRITE, Loop

RECEIVE_BYTES = 65536

REQUESTS_FOR_ALL = (b"\0\0\0\0\0", b"\0\0\0\0\2\n\0")
"""Both framed encodings of a request for service "", the only one there is: field left out, or empty."""

REQUEST_BYTES = max(map(len, REQUESTS_FOR_ALL))

SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3
NOT_FOUND, UNIMPLEMENTED = 5, 12

CHECK = b"/grpc.health.v1.Health/Check"
WATCH = b"/grpc.health.v1.Health/Watch"


@dataclass(slots=True)
class _Call:
    """A call whose request is still arriving."""

    path: bytes
    body: bytearray = field(default_factory=bytearray)


class Session:
    """Answers one client until it leaves or breaks the protocol."""

    def __init__(self, loop: Loop, sock: socket.socket, *, serving: bool) -> None:
        self._loop = loop
        self._sock = sock
        self._status = SERVING if serving else NOT_SERVING
        self._calls: dict[int, _Call] = {}
        self._outgoing = b""
        self._closing = False
        self._http = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        self._http.initiate_connection()

    def receive(self, data: bytes) -> None:
        """Handle what the client sent, and answer."""
        try:
            events = self._http.receive_data(data)
            # a call may be cancelled with the bytes that made it: then there is nobody to answer
            reset = {event.stream_id for event in events if isinstance(event, StreamReset)}
            for event in events:
                if getattr(event, "stream_id", None) not in reset:
                    self._handle(event)
            for stream in reset:
                self._calls.pop(stream, None)
        except ProtocolError:
            self._closing = True  # what is to be sent ends with h2's GOAWAY
        self._outgoing += self._http.data_to_send()
        self._send()

    def _ready(self) -> None:
        if self._outgoing:
            self._send()
            return
        try:
            data = self._sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.receive(data)
        else:
            self._close()

    def _send(self) -> None:
        try:
            self._outgoing = self._outgoing[self._sock.send(self._outgoing) :] if self._outgoing else b""
        except BlockingIOError:
            pass
        except OSError:
            self._close()
            return
        if self._closing and not self._outgoing:
            self._close()
            return
        # a client that does not read its answers is not asked for more requests
        self._loop.watch(self._sock.fileno(), WRITE if self._outgoing else READ, self._ready)

    def _close(self) -> None:
        self._loop.watch(self._sock.fileno(), 0, self._ready)
        self._sock.close()

    def _handle(self, event: Event) -> None:
        match event:
            case RequestReceived(stream_id=int(stream), headers=headers):
                path = dict(headers or ()).get(b":path", b"")
                if path in {CHECK, WATCH}:
                    self._calls[stream] = _Call(path)
                else:
                    self._refuse(stream, UNIMPLEMENTED, "the stub only serves grpc.health.v1.Health")
            case DataReceived(stream_id=int(stream)):
                self._http.acknowledge_received_data(event.flow_controlled_length or 0, stream)
                if stream in self._calls and len(self._calls[stream].body) <= REQUEST_BYTES:
                    self._calls[stream].body += event.data or b""
            case StreamEnded(stream_id=int(stream)) if stream in self._calls:
                self._answer(stream, self._calls.pop(stream))
            case _:
                pass

    def _answer(self, stream: int, call: _Call) -> None:
        known = bytes(call.body) in REQUESTS_FOR_ALL
        if call.path == CHECK and not known:
            self._refuse(stream, NOT_FOUND, "unknown service")
            return
        status = self._status if known else SERVICE_UNKNOWN
        self._http.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
        self._http.send_data(stream, b"\0\0\0\0\2\x08" + bytes([status]))
        if call.path == CHECK:  # a watch stays open; its status never changes
            self._http.send_headers(stream, [("grpc-status", "0")], end_stream=True)

    def _refuse(self, stream: int, code: int, message: str) -> None:
        headers = [(":status", "200"), ("content-type", "application/grpc")]
        headers += [("grpc-status", str(code)), ("grpc-message", message)]
        self._http.send_headers(stream, headers, end_stream=True)
