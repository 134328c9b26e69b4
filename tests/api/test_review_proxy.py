"""Review: faults of the proxy, each shown by a test that fails."""

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest

from instance_manager.adapters.engine import Channels, Timeouts, engines_over
from instance_manager.core.engine import Engine
from instance_manager.core.errors import UpstreamError
from instance_manager.pb.imrpc import proxy_pb2 as pb
from instance_manager.pb.ptypes import controller_pb2, replica_pb2
from instance_manager.platform.background import Background
from tests.support.engine.process import EngineProcess
from tests.support.engine.served import ProxyClient, of, served_proxy
from tests.support.proxy import proxied

SIZE = 16 << 20


@pytest.mark.parametrize("length", [1_000, 20_000])
async def test_a_long_error_of_an_engine_keeps_its_code(
    engine: EngineProcess, proxy: ProxyClient, length: int
) -> None:
    await engine.tell(fail="VolumeRevert", at="controller", code="FAILED_PRECONDITION", message="x" * length)
    code, _ = await proxy.error(
        "SnapshotRevert", pb.EngineSnapshotRevertRequest(proxy_engine_request=of(engine), name="a")
    )
    assert code == "FAILED_PRECONDITION"


async def test_an_odd_address_of_a_replica_is_no_defect_of_the_daemon(
    engine: EngineProcess, proxy: ProxyClient
) -> None:
    odd = controller_pb2.ReplicaAddress(address="tcp://nowhere")
    each = controller_pb2.ControllerReplica(address=odd, mode=controller_pb2.ReplicaMode.RW)
    told = controller_pb2.ReplicaListReply(replicas=[each]).SerializeToString()
    await engine.tell(odd="ReplicaList", at="controller", answer=told.hex())
    request = pb.EngineSnapshotCloneRequest(
        proxy_engine_request=of(engine), from_engine_address=engine.address, snapshot_name="a"
    )
    _, text = await proxy.error("SnapshotClone", request)
    assert "defect" not in text


@pytest.mark.parametrize("name", ["x" * 240, "a\0b"])
async def test_a_snapshot_that_no_file_can_be_named_after_is_refused(
    engine: EngineProcess, proxy: ProxyClient, name: str
) -> None:
    """The file is volume-snap-NAME.img, with .meta or .checksum behind it, and 255 bytes are the most."""
    asked = controller_pb2.VolumeSnapshotRequest(name=name)
    request = pb.EngineVolumeSnapshotRequest(proxy_engine_request=of(engine), snapshot_volume=asked)
    code, _ = await proxy.error("VolumeSnapshot", request)
    assert code == "INVALID_ARGUMENT"
