"""Readiness of an instance: its port accepts a connection and its gRPC health service says SERVING."""

import asyncio
import errno
import socket

import grpc
import grpc.aio
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2

_FIRST_DELAY = 0.001
_LONGEST_DELAY = 0.1
_CALL_TIMEOUT = 5.0
_LOOK_INTERVAL = 1.0
"""Seconds between looks at how much of the time is used up."""
_STALL = 1.0
"""Seconds by which a look is late when the daemon has stood still."""
_SECOND_CHANCE = 5.0
"""Seconds that an instance gets at least after the daemon has stood still: enough for a whole attempt."""
_LOOPBACKS = ((socket.AF_INET, "127.0.0.1", "ipv4:127.0.0.1:{}"), (socket.AF_INET6, "::1", "ipv6:[::1]:{}"))
_CHANNEL_OPTIONS = (
    # A channel of its own that goes away with the probe, and no proxy on the way to the own machine.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # How long a connection waits for the first word of HTTP/2, even if its channel is closed meanwhile.
    ("grpc.min_reconnect_backoff_ms", 2000),
)
_NO_ANSWER = {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE}

Check = grpc.aio.UnaryUnaryMultiCallable[Message, health_pb2.HealthCheckResponse]


class HealthProbe:
    """Implements `app.interfaces.Readiness`."""

    async def wait(self, port: int, within: float) -> str | None:
        """Wait until the instance serves; see `app.interfaces.Readiness.wait`."""
        attempt = _Attempt(port)
        try:
            async with asyncio.timeout(None) as limit:
                budget = _Budget(within, limit)
                try:
                    target = await attempt.connect()
                    await attempt.serving(target)
                finally:
                    budget.close()
        except TimeoutError:
            return f"not ready within {within:g} s: {attempt.missing}"
        return None


class _Budget:
    """Ends a wait when its time is over; a stall of the daemon counts little and never ends it.

    An instance may have got ready meanwhile, and nobody was there to see.
    """

    def __init__(self, seconds: float, limit: asyncio.Timeout) -> None:
        self._left = seconds
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._set()

    def close(self) -> None:
        """End nothing any more."""
        self._timer.cancel()

    def _set(self) -> None:
        self._granted = min(_LOOK_INTERVAL, self._left)
        self._due = self._loop.time() + self._granted
        self._timer = self._loop.call_later(self._granted, self._look)

    def _look(self) -> None:
        self._left -= self._granted
        if self._loop.time() - self._due > _STALL:
            self._left = max(self._left, _SECOND_CHANCE)
        if self._left > 0:
            self._set()
        else:
            self._limit.reschedule(self._loop.time())


class _Attempt:
    """One wait; knows at every moment what is still missing."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._unanswered = f"localhost:{port} accepts connections but answers no health check"
        self.missing = f"nothing listens on localhost:{port}"

    async def connect(self) -> str:
        """Return the gRPC target of the port as soon as something listens on it."""
        delay = _FIRST_DELAY
        while True:
            for family, host, target in _LOOPBACKS:
                if await _accepts(family, host, self._port):
                    return target.format(self._port)
            await asyncio.sleep(delay)
            delay = min(delay * 2, _LONGEST_DELAY)

    async def serving(self, target: str) -> None:
        """Return as soon as the health service there says SERVING."""
        self.missing = self._unanswered
        async with grpc.aio.insecure_channel(target, options=_CHANNEL_OPTIONS) as channel:
            check = channel.unary_unary(
                f"/{health.SERVICE_NAME}/Check",
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )
            delay = _FIRST_DELAY
            while (missing := await self._ask(check)) is not None:
                self.missing = missing
                await asyncio.sleep(delay)
                delay = min(delay * 2, _LONGEST_DELAY)

    async def _ask(self, check: Check) -> str | None:
        """Ask the health service once; return what is missing, None if it serves."""
        try:
            answer = await check(health_pb2.HealthCheckRequest(), timeout=_CALL_TIMEOUT, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            if error.code() in _NO_ANSWER:
                return self._unanswered
            says = f"{error.code().name}: {error.details()}"
        else:
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                return None
            says = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        return f"the health check on localhost:{self._port} says {says}"


async def _accepts(family: socket.AddressFamily, host: str, port: int) -> bool:
    """Tell whether something accepts a connection there."""
    try:
        with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
            # On the own machine the answer is there when asked for again: no need to wait for the event loop.
            if sock.connect_ex((host, port)) == errno.EINPROGRESS and (
                sock.connect_ex((host, port)) == errno.EALREADY
            ):
                await asyncio.get_running_loop().sock_connect(sock, (host, port))
            # The kernel connects a socket to itself if it happens to pick the port asked for.
            return bool(sock.getsockname() != sock.getpeername())
    except OSError:
        return False
