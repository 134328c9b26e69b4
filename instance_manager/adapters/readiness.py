"""Readiness of an instance: its port accepts a connection, and its gRPC health service says SERVING."""

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable

import grpc
import grpc.aio
import structlog
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health, health_pb2

from instance_manager.platform.backoff import exponential_backoff

log = structlog.get_logger(__name__)

_FIRST_DELAY = 0.001
_LONGEST_DELAY = 0.1
_CALL_TIMEOUT = 5.0
_LOOK_INTERVAL = 1.0
"""Seconds between looks at the remaining time."""
_STALL = 1.0
"""Seconds; a look that is later than this means that the daemon was stalled."""
_SECOND_CHANCE = 5.0
"""Seconds that an instance gets at least after a stall of the daemon: enough for a whole attempt."""
_LOOPBACKS = ((socket.AF_INET, "127.0.0.1", "ipv4:127.0.0.1:{}"), (socket.AF_INET6, "::1", "ipv6:[::1]:{}"))
_CHANNEL_OPTIONS = (
    # A connection of its own that is closed with the probe, and no proxy on the way to this machine.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    # An answer has two bytes. Whatever listens there costs no more than this.
    ("grpc.max_receive_message_length", 1024),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # How long a connection waits for the start of HTTP/2, even if its channel has been closed.
    ("grpc.min_reconnect_backoff_ms", 2000),
)
_LONGEST_ERROR = 200
"""Characters of what an instance says that are shown."""
_NAMES = {number: name for name, number in health_pb2.HealthCheckResponse.ServingStatus.items()}
_NO_ANSWER = {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE}

Check = grpc.aio.UnaryUnaryMultiCallable[Message, bytes]


Stranger = Callable[[int, int, str], Awaitable[str]]
"""Takes a port, the PID of an instance and an address; returns who else listens there, empty for nobody."""


class HealthProbe:
    """Implements `app.interfaces.Readiness`."""

    def __init__(self, stranger: Stranger | None = None) -> None:
        """Without `stranger`, whoever listens on a port is taken for the instance."""
        self._stranger = stranger

    async def wait(
        self, port: int, within: float, leader: int = 0, tell: Callable[[str], None] = lambda _: None
    ) -> str | None:
        """Wait until the instance serves; see `app.interfaces.Readiness.wait`."""
        attempt = _Attempt(port, tell)
        try:
            async with asyncio.timeout(None) as limit:
                budget = _Budget(within, limit)
                try:
                    await attempt.ready(self._stranger, leader)
                finally:
                    budget.close()
        except TimeoutError:
            return f"not ready within {within:g} s: {attempt.missing}"
        return None


class _Budget:
    """Ends a wait after a timeout; a stall of the daemon hardly counts and never ends the wait.

    An instance may have become ready during the stall.
    """

    def __init__(self, seconds: float, limit: asyncio.Timeout) -> None:
        self._left = seconds
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._set()

    def close(self) -> None:
        """Cancel the timeout."""
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
    """One wait, which keeps track of what is still missing."""

    def __init__(self, port: int, tell: Callable[[str], None]) -> None:
        self._port = port
        self._tell = tell
        self._unanswered = f"localhost:{port} accepts connections but answers no health check"
        self._missing = ""
        self._logged = ""
        self.missing = f"nothing listens on localhost:{port}"

    def _log(self, outcome: str) -> None:
        """Log how an attempt has ended, unless the one before ended the same way."""
        if outcome != self._logged:
            self._logged = outcome
            log.debug("readiness attempt", port=self._port, outcome=outcome)

    @property
    def missing(self) -> str:
        """What is missing, in words; it is told whenever it changes."""
        return self._missing

    @missing.setter
    def missing(self, text: str) -> None:
        if text != self._missing:
            self._missing = text
            self._tell(text)

    async def ready(self, stranger: Stranger | None, leader: int) -> None:
        """Return as soon as the instance serves; whatever goes wrong before that, it does not serve yet."""
        delays = exponential_backoff(_FIRST_DELAY, _LONGEST_DELAY)
        while True:
            try:
                target = await self.connect(stranger, leader)
                await self.serving(target)
            except Exception as error:
                log.exception("readiness check failed", port=self._port)
                self.missing = f"the health check on localhost:{self._port} failed: {_short(repr(error))}"
            else:
                return
            await asyncio.sleep(next(delays))

    async def connect(self, stranger: Stranger | None, leader: int) -> str:
        """Return the gRPC target of the port as soon as something listens on it that is no stranger.

        The instance may listen at one loopback address, and a stranger at the other.
        """
        delays = exponential_backoff(_FIRST_DELAY, _LONGEST_DELAY)
        looks = exponential_backoff(_LONGEST_DELAY, _LOOK_INTERVAL)
        while True:
            who = ""
            for family, host, target in _LOOPBACKS:
                if not await _accepts(family, host, self._port):
                    continue
                self._log(f"connected to {host}")
                who = await stranger(self._port, leader, host) if stranger else ""
                if not who:
                    return target.format(self._port)
                self.missing = f"another program listens on localhost:{self._port}: {who}"
            self._log(self.missing)
            await asyncio.sleep(next(looks if who else delays))

    async def serving(self, target: str) -> None:
        """Return as soon as the health service there says SERVING."""
        self.missing = self._unanswered
        async with grpc.aio.insecure_channel(target, options=_CHANNEL_OPTIONS) as channel:
            check: Check = channel.unary_unary(
                f"/{health.SERVICE_NAME}/Check",
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                # Decoded here: gRPC would log a traceback for each answer that it cannot read.
                response_deserializer=None,
            )
            delays = exponential_backoff(_FIRST_DELAY, _LONGEST_DELAY)
            while (missing := await self._ask(check)) is not None:
                self._log(missing)
                self.missing = missing
                await asyncio.sleep(next(delays))
        self._log("serving")

    async def _ask(self, check: Check) -> str | None:
        """Ask the health service once; return what is missing, None if it serves."""
        try:
            answer = await check(health_pb2.HealthCheckRequest(), timeout=_CALL_TIMEOUT, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            if error.code() in _NO_ANSWER:
                return self._unanswered
            says = f"{error.code().name}: {_short(error.details() or '')}"
        else:
            status = _status(answer)
            if status == health_pb2.HealthCheckResponse.SERVING:
                return None
            says = _NAMES.get(status, f"what is no health status: {_short(repr(answer))}")
        return f"the health check on localhost:{self._port} says {says}"


def _status(answer: bytes) -> int:
    """Return the status in an answer, -1 if it is none."""
    try:
        return int(health_pb2.HealthCheckResponse.FromString(answer).status)
    except DecodeError:
        return -1


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_ERROR else f"{text[:_LONGEST_ERROR]}…"


async def _accepts(family: socket.AddressFamily, host: str, port: int) -> bool:
    """Return whether something accepts a connection at an address."""
    try:
        with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
            # On this machine, the second call already has the result, without waiting for the event loop.
            if sock.connect_ex((host, port)) == errno.EINPROGRESS and (
                sock.connect_ex((host, port)) == errno.EALREADY
            ):
                await asyncio.get_running_loop().sock_connect(sock, (host, port))
            # If the kernel happens to pick this very port for our end, the socket connects to itself.
            return bool(sock.getsockname() != sock.getpeername())
    except OSError:
        return False
