"""A v1 engine for tests: controller and replicas listen, keep state, and can be told to fail or to hang.

    python -m tests.support.engine.program [--host 127.0.0.1] [--port 0] [--volume vol1] [--replicas 2]

A line of JSON on stdout tells the address of the controller, and those of the replicas by name. Each line of
JSON on stdin is an order, answered by one on stdout. A place is `controller` or the name of a replica, whose
sync agent it is, too; "*" is every place, and every method:

    {"fail": "ReplicaGet", "at": "vol1-r-1", "code": "INTERNAL", "message": "told to"}
    {"hang": "RestoreStatus", "at": "vol1-r-2"}                             it is never answered
    {"lose": "FilesSync", "at": "vol1-r-2"}                                 it is done, but never answered
    {"odd": "VolumeGet", "at": "controller", "answer": "ff"}                these bytes are the answer
    {"work": true}                                                          all as before
    {"hold": "purge"}          also hash, cancel, rebuild, clone, backup, restore: it waits until
    {"release": "purge"}
    {"volume": {"frontendState": "up"}}                                     fields of the volume
    {"metrics": {"readIOPS": 7}}
    {"mode": "ERR", "of": "vol1-r-1"}
    {"snapshots": 250}                                                      takes so many
    {"replica": "vol1-r-3"}    one more listens, at the address that is answered; the volume has it not yet
    {"put": "rebuilding", "of": "vol1-r-1", "value": true}                 also backing_file, size, state
    {"file": "odd-name", "of": "vol1-r-1", "parent": ""}                   one more file
    {"leave": "vol1-r-1"}                                                   it listens no longer
    {"look": true}             mode, rebuilding, size and snapshots (if they are marked) of each replica
    {"calls": true}            place, method, request and metadata of every call since the last time
    {"pending": true}          methods of the calls that hang and have not been given up
    {"reset": true}            as if it were new; replicas that were added or have left, too

It ends at the end of stdin.
"""

import argparse
import asyncio
import json
import sys
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from google.protobuf import json_format

from instance_manager.pb.ptypes import controller_pb2, replica_pb2, syncagent_pb2
from tests.support.engine.controller import RW, Controller
from tests.support.engine.disks import Disk
from tests.support.engine.endpoint import Faults, Identity, handler
from tests.support.engine.replica import Replica
from tests.support.engine.sync_agent import Holds, SyncAgent

CONTROLLER = controller_pb2.DESCRIPTOR.services_by_name["ControllerService"]
REPLICA = replica_pb2.DESCRIPTOR.services_by_name["ReplicaService"]
SYNC_AGENT = syncagent_pb2.DESCRIPTOR.services_by_name["SyncAgentService"]
SYNC_AGENT_OFFSET = 2
SIZE = 16 << 20


@dataclass
class Place:
    """A replica that listens."""

    address: str
    replica: Replica
    agent: SyncAgent
    servers: tuple[grpc.aio.Server, grpc.aio.Server]

    async def close(self) -> None:
        """Listen no longer."""
        for server in self.servers:
            await server.stop(None)


class Engine:
    """The program: its parts, and the orders."""

    def __init__(self, host: str, port: int, volume: str, replicas: int) -> None:
        self.host = host
        self.port = port
        self.volume = volume
        self.count = replicas
        self.faults, self.holds = Faults(), Holds()
        self.places: dict[str, Place] = {}
        self.known: dict[str, Replica] = {}
        """By address."""
        self.controller = Controller(volume, SIZE, self.known)
        self.address = ""

    async def start(self) -> None:
        """Listen."""
        identity = Identity("controller", "controller", self.volume, f"{self.volume}-e-0")
        forward = _Current(lambda: self.controller)
        server, port = await _listen(
            self.host, self.port, handler(CONTROLLER, forward, identity, self.faults)
        )
        self._server = server
        self.address = f"{self.host}:{port}"
        await self._on_reset(True)

    async def close(self) -> None:
        """Listen no longer."""
        self.holds.clear()
        await asyncio.gather(*(place.close() for place in self.places.values()), self._server.stop(None))

    async def add(self, name: str) -> str:
        """Let a replica listen at a port, and its sync agent two above; return its address."""
        while True:
            replica = Replica(name, SIZE)
            agent = SyncAgent(replica, self.known, f"/data/{name}", self.holds)
            identity = Identity(name, "replica", self.volume, name)
            first, port = await _listen(self.host, 0, handler(REPLICA, replica, identity, self.faults))
            try:
                second, _ = await _listen(
                    self.host, port + SYNC_AGENT_OFFSET, handler(SYNC_AGENT, agent, identity, self.faults)
                )
            except RuntimeError:  # that one is taken: try another
                await first.stop(None)
                continue
            address = f"tcp://{self.host}:{port}"
            self.known[address] = replica
            self.places[name] = Place(address, replica, agent, (first, second))
            return address

    async def obey(self, order: dict[str, Any]) -> Any:
        """Do what a line on stdin says and return what to answer."""
        told = getattr(self, f"_on_{next(iter(order))}")(*order.values())
        told = await told if asyncio.iscoroutine(told) else told
        return "done" if told is None else told

    def _on_fail(self, method: str, at: str, code: str, message: str = "told to fail") -> None:
        self.faults.failing[at, method] = (code, message)

    def _on_hang(self, method: str, at: str) -> None:
        self.faults.hanging.add((at, method))

    def _on_lose(self, method: str, at: str) -> None:
        self.faults.losing.add((at, method))

    def _on_odd(self, method: str, at: str, answer: str) -> None:
        self.faults.odd[at, method] = bytes.fromhex(answer)

    def _on_work(self, _: bool) -> None:
        self.faults.clear()

    def _on_hold(self, work: str) -> None:
        self.holds.hold(work)

    def _on_release(self, work: str) -> None:
        self.holds.release(work)

    def _on_volume(self, fields: dict[str, Any]) -> None:
        json_format.ParseDict(fields, self.controller.volume)

    def _on_metrics(self, fields: dict[str, Any]) -> None:
        json_format.ParseDict(fields, self.controller.metrics)

    def _on_mode(self, mode: str, of: str) -> None:
        self.controller.modes[self.places[of].address] = controller_pb2.ReplicaMode.Value(mode)

    def _on_snapshots(self, count: int) -> None:
        for number in range(count):
            labels = {"number": str(number), "why": "l" * 100}
            self.controller.VolumeSnapshot(
                controller_pb2.VolumeSnapshotRequest(name=f"n{number:03}", labels=labels)
            )

    async def _on_replica(self, name: str) -> str:
        return await self.add(name)

    def _on_put(self, field: str, of: str, value: Any) -> None:
        replica = self.places[of].replica
        setattr(replica.disks if field == "backing_file" else replica, field, value)

    def _on_file(self, name: str, of: str, parent: str) -> None:
        self.places[of].replica.disks.files[name] = Disk(parent)

    async def _on_leave(self, name: str) -> None:
        await self.places[name].close()

    def _on_look(self, _: bool) -> Any:
        names = {place.address: name for name, place in self.places.items()}
        return {
            names[address]: {
                "mode": controller_pb2.ReplicaMode.Name(mode),
                "rebuilding": self.known[address].rebuilding,
                "size": self.known[address].size,
                "snapshots": {
                    name: disk.removed for name, disk in self.known[address].disks.snapshots.items()
                },
            }
            for address, mode in self.controller.modes.items()
        }

    def _on_calls(self, _: bool) -> Any:
        calls, self.faults.calls = self.faults.calls, []
        return calls

    def _on_pending(self, _: bool) -> Any:
        return self.faults.pending

    async def _on_reset(self, _: bool) -> dict[str, Any]:
        self.faults.clear()
        self.faults.calls.clear()
        self.holds.clear()
        for place in self.places.values():
            await place.close()
        self.places.clear()
        self.known.clear()
        self.controller = Controller(self.volume, SIZE, self.known)
        for number in range(1, self.count + 1):
            address = await self.add(f"{self.volume}-r-{number}")
            self.known[address].open()
            self.controller.modes[address] = RW
        return self.told()

    def told(self) -> dict[str, Any]:
        """Return where everything listens."""
        replicas = {name: place.address for name, place in self.places.items()}
        return {"controller": self.address, "replicas": replicas}


class _Current:
    """The controller of the moment: a reset makes another one."""

    def __init__(self, of: Any) -> None:
        self._of = of

    def __getattr__(self, name: str) -> Any:
        return getattr(self._of(), name)


async def _listen(host: str, port: int, service: grpc.GenericRpcHandler) -> tuple[grpc.aio.Server, int]:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers([service])
    bound = server.add_insecure_port(f"{host}:{port}")
    await server.start()
    return server, bound


def answer(told: Any) -> None:
    sys.stdout.write(f"{json.dumps(told)}\n")
    sys.stdout.flush()


async def serve(engine: Engine) -> None:
    """Serve until stdin ends."""
    await engine.start()
    answer(engine.told())
    while line := await asyncio.to_thread(sys.stdin.readline):
        answer(await engine.obey(json.loads(line)))
    await engine.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="of the controller")
    parser.add_argument("--volume", default="vol1")
    parser.add_argument("--replicas", type=int, default=2)
    options = parser.parse_args()
    asyncio.run(serve(Engine(options.host, options.port, options.volume, options.replicas)))


if __name__ == "__main__":
    main()
