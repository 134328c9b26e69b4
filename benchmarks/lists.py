"""What lists and gets cost the daemon, against methods of the same server that answer constant bytes.

    python benchmarks/lists.py [--processes 500] [--calls 300] [--rounds 7]

A server with the real services over processes that exist in memory only, and a client in a process of its
own. Each round calls every method in turn; what counts is the median of the server's CPU time per call.
Prints one JSON object and exits with 1 if a bound is broken: ProcessList and InstanceList 1.3 times the
constant answer of the same size, InstanceGet 1.5 times an empty one.
"""

import argparse
import asyncio
import json
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import structlog
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from instance_manager.adapters.metrics import RpcMetrics
from instance_manager.api.instance_service import InstanceService
from instance_manager.api.instance_v2 import InstanceV2
from instance_manager.api.interceptors import InterceptorChain
from instance_manager.api.listeners import Listener, Offset
from instance_manager.api.process_service import ProcessService
from instance_manager.api.server import GrpcServer
from instance_manager.app.audit import AuditTrail
from instance_manager.app.broadcast import Pings
from instance_manager.app.events import EventLog
from instance_manager.app.replace import Replacer
from instance_manager.app.supervisor import Settings, Supervisor
from instance_manager.core.addresses import parse_address
from instance_manager.core.ports import PortRange
from instance_manager.core.spec import ProcessSpec
from instance_manager.pb.imrpc import imrpc_pb2, instance_pb2
from instance_manager.platform.logging import LogControl
from tests.support.fakes import FakeClock, FakeJournal, FakeLogs, FakeReadiness, FakeSpawner

BOUNDS = {
    "ProcessList": ("constant ProcessList", 1.3),
    "InstanceList": ("constant InstanceList", 1.3),
    "InstanceGet": ("empty", 1.5),
}
"""Method -> (what it is measured against, how many times its CPU it may take)."""


def supervisor_of(processes: int) -> Supervisor:
    """Return a supervisor with so many processes that run, with ports and arguments as engines have them."""
    clock = FakeClock()
    uuids = (f"{number:08x}-1c57-4b1f-a7a7-6a9e7d9e9a00" for number in range(processes))
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    supervisor = Supervisor(
        Settings(port_range=PortRange(10_000, 30_000)),
        spawner=FakeSpawner(),
        readiness=FakeReadiness(),
        logs=FakeLogs(),
        events=EventLog(clock.now),
        clock=clock,
        journal=FakeJournal(),
        new_uuid=lambda: next(uuids),
    )
    for number in range(processes):
        name = f"pvc-{number:08x}-4b1f-a7a7-r-{number:08x}"
        supervisor.create(ProcessSpec(name, "/bin/replica", ("replica", "/data", "--size", "1073741824")))
    clock.advance()
    return supervisor


class Server:
    """The real services and, beside them, methods that answer constant bytes."""

    def __init__(self, folder: Path, processes: int) -> None:
        supervisor = supervisor_of(processes)
        replacer = Replacer(supervisor)
        of_processes = ProcessService(supervisor, replacer)
        of_instances = InstanceService(supervisor, replacer, Pings(), InstanceV2(None), LogControl())
        name = next(iter(supervisor.processes()))
        self.requests = {
            "ProcessList": ("/ProcessManagerService/ProcessList", b""),
            "InstanceList": ("/imrpc.InstanceService/InstanceList", b""),
            "InstanceGet": (
                "/imrpc.InstanceService/InstanceGet",
                instance_pb2.InstanceGetRequest(name=name).SerializeToString(),
            ),
        }
        self.constants = {"empty": b""}
        self.url = f"unix:{folder}/bench.sock"
        self._grpc = GrpcServer(
            [Listener(Offset.PROCESS, (of_processes, of_instances))],
            InterceptorChain(AuditTrail(time.time), RpcMetrics()),
        )
        # Beside the services: these pass no interceptors.
        constants = grpc.method_handlers_generic_handler(
            "bench.Constant",
            {
                each.replace(" ", ""): grpc.unary_unary_rpc_method_handler(self._constant(each))
                for each in ("empty", "constant ProcessList", "constant InstanceList")
            },
        )
        self._constants = constants
        for each in ("empty", "constant ProcessList", "constant InstanceList"):
            self.requests[each] = (f"/bench.Constant/{each.replace(' ', '')}", b"")

    def _constant(self, name: str) -> Any:
        async def answer(_: bytes, __: Any) -> bytes:
            return self.constants[name]

        return answer

    async def start(self) -> None:
        """Serve, and learn how long the lists are."""
        self._grpc.bind(parse_address(self.url))
        for server in self._grpc._servers.values():  # noqa: SLF001
            server.add_generic_rpc_handlers([self._constants])
        await self._grpc.start()
        async with grpc.aio.insecure_channel(self.url) as channel:
            for method in ("ProcessList", "InstanceList"):
                call: Any = channel.unary_unary(self.requests[method][0])
                self.constants[f"constant {method}"] = await call(b"")
        imrpc_pb2.ProcessListResponse.FromString(self.constants["constant ProcessList"])

    async def stop(self) -> None:
        """End it."""
        await self._grpc.stop(0)


async def measure(processes: int, calls: int, rounds: int) -> dict[str, Any]:
    """Return what the methods cost."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder), processes)
        await server.start()
        client = await asyncio.create_subprocess_exec(
            *(sys.executable, __file__, "--client", server.url),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert client.stdin is not None
        assert client.stdout is not None
        cost: dict[str, list[float]] = {name: [] for name in server.requests}
        for turn in range(rounds + 1):
            for name, (path, request) in server.requests.items():
                before = time.process_time()
                client.stdin.write(f"{path} {request.hex() or '-'} {calls}\n".encode())
                await client.stdout.readline()
                if turn:  # the first is to warm up
                    cost[name].append((time.process_time() - before) / calls)
        client.stdin.close()
        await client.wait()
        await server.stop()
    median = {name: statistics.median(values) for name, values in cost.items()}
    return {
        "processes": processes,
        "bytes": {name: len(value) for name, value in server.constants.items()},
        "cpu_us_per_call": {name: round(value * 1e6, 1) for name, value in median.items()},
        "ratio": {name: round(median[name] / median[other], 2) for name, (other, _) in BOUNDS.items()},
        "bounds": {name: bound for name, (_, bound) in BOUNDS.items()},
    }


async def call_as_told(url: str) -> None:
    """Be the client: `PATH REQUEST CALLS` on stdin, an empty line on stdout when they are answered."""
    async with grpc.aio.insecure_channel(url) as channel:
        for line in iter(sys.stdin.readline, ""):
            path, request, calls = line.split()
            call: Any = channel.unary_unary(path)
            raw = b"" if request == "-" else bytes.fromhex(request)
            for _ in range(int(calls)):
                await call(raw)
            print(flush=True)


def main() -> int:
    """Measure, print, and hold the result against the bounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--processes", type=int, default=500)
    parser.add_argument("--calls", type=int, default=300, help="per round and method")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--client", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        asyncio.run(call_as_told(options.client))
        return 0
    result = uvloop.run(measure(options.processes, options.calls, options.rounds))
    print(json.dumps(result, indent=2))
    return int(any(result["ratio"][name] > bound for name, bound in result["bounds"].items()))


if __name__ == "__main__":
    sys.exit(main())
