"""Review: what a hostile or unlucky neighbour can do to the proxy."""

import asyncio
from typing import Any

import grpc.aio
import pytest
from google.protobuf.message_factory import GetMessageClass

from instance_manager.adapters.engine import Channels, Timeouts, engines_over
from instance_manager.core.engine import Engine
from instance_manager.core.errors import UpstreamError
from instance_manager.pb.imrpc import proxy_pb2 as pb
from instance_manager.pb.ptypes import controller_pb2, replica_pb2
from instance_manager.platform.background import Background
from tests.support.engine.process import EngineProcess
from tests.support.engine.served import SERVICE, ProxyClient, of, served_proxy
from tests.support.proxy import proxied

R1, R2 = "vol1-r-1", "vol1-r-2"


async def test_a_connection_that_went_silent_is_not_used_for_the_next_call(engine: EngineProcess) -> None:
    kept = Channels(Background())
    controllers = engines_over(kept, Timeouts(call=1.0)).controllers
    async with proxied(int(engine.address.rpartition(":")[2])) as network:
        which = Engine(f"127.0.0.1:{network.port}", "vol1", engine.name)
        await controllers.volume(which)
        await network.cut()  # what was connected is silent; who connects now gets through
        with pytest.raises(UpstreamError):
            await controllers.volume(which)
        try:
            told = []
            for _ in range(5):
                try:
                    told.append((await controllers.volume(which)).name)
                except UpstreamError as error:
                    told.append(str(error)[-60:])
            print(told)
            assert "vol1" in told
        finally:
            await kept.close()


async def test_a_long_error_keeps_its_code(engine: EngineProcess, proxy: ProxyClient) -> None:
    for size in (1000, 6000, 9000, 20000, 100000):
        await engine.tell(fail="VolumeRevert", at="controller", code="FAILED_PRECONDITION", message="x" * size + "END")
        code, text = await proxy.error(
            "SnapshotRevert", pb.EngineSnapshotRevertRequest(proxy_engine_request=of(engine), name="a")
        )
        print(size, code, len(text), text[:90], text[-40:])


async def test_odd_details(engine: EngineProcess, proxy: ProxyClient) -> None:
    for text in ("a\nb", "a\0b", "\ud7ff…é", "%zz", "\x7f\x01"):
        await engine.tell(fail="VolumeRevert", at="controller", code="NOT_FOUND", message=text)
        print(repr(text), await proxy.error(
            "SnapshotRevert", pb.EngineSnapshotRevertRequest(proxy_engine_request=of(engine), name="a")
        ))


async def test_every_method_without_its_parts(proxy: ProxyClient, engine: EngineProcess) -> None:
    for method in SERVICE.methods:
        kind = GetMessageClass(method.input_type)
        for request in (kind(), kind(proxy_engine_request=of(engine)) if "proxy_engine_request" in method.input_type.fields_by_name else kind(),
                        kind(proxy_engine_request=pb.ProxyEngineRequest()) if "proxy_engine_request" in method.input_type.fields_by_name else kind()):
            try:
                if method.server_streaming:
                    continue
                told = await proxy.call(method.name, request)
                print(method.name, "OK", str(told)[:80].replace("\n", " "))
            except grpc.aio.AioRpcError as error:
                print(method.name, error.code().name, (error.details() or "")[:140])


def listing(*addresses: str, mode: int = 1) -> str:
    return controller_pb2.ReplicaListReply(
        replicas=[
            controller_pb2.ControllerReplica(address=controller_pb2.ReplicaAddress(address=each), mode=mode)
            for each in addresses
        ]
    ).SerializeToString().hex()


@pytest.mark.parametrize("address", ["tcp://nowhere", "unix:///run/x", "", "tcp://127.0.0.1:65535", "[::1", "file:a:1"])
async def test_odd_replica_addresses(engine: EngineProcess, proxy: ProxyClient, address: str) -> None:
    await engine.tell(odd="ReplicaList", at="controller", answer=listing(address))
    inner = of(engine)
    for name, request in (
        ("SnapshotList", inner),
        ("SnapshotPurge", pb.EngineSnapshotPurgeRequest(proxy_engine_request=inner)),
        ("SnapshotPurgeStatus", inner),
        ("SnapshotHash", pb.EngineSnapshotHashRequest(proxy_engine_request=inner, snapshot_name="a")),
        ("SnapshotHashStatus", pb.EngineSnapshotHashStatusRequest(proxy_engine_request=inner, snapshot_name="a")),
        ("SnapshotRemove", pb.EngineSnapshotRemoveRequest(proxy_engine_request=inner, names=["a"])),
        ("SnapshotClone", pb.EngineSnapshotCloneRequest(proxy_engine_request=inner, from_engine_address=engine.address, snapshot_name="a")),
        ("SnapshotBackup", pb.EngineSnapshotBackupRequest(proxy_engine_request=inner, snapshot_name="a", backup_target="vfs:///b")),
        ("BackupRestore", pb.EngineBackupRestoreRequest(proxy_engine_request=inner, url="vfs:///b", target="vfs:///b")),
        ("BackupRestoreStatus", inner),
        ("ReplicaRebuildingStatus", inner),
        ("SnapshotCloneStatus", inner),
    ):
        try:
            told = await proxy.call(name, request)
            print(name, "OK", str(told)[:150].replace("\n", " "))
        except grpc.aio.AioRpcError as error:
            print(name, error.code().name, (error.details() or "")[:170])


@pytest.mark.parametrize("seconds", [2**31, 2**40, 2**62, -1])
async def test_odd_timeouts(engine: EngineProcess, proxy: ProxyClient, seconds: int) -> None:
    new = await engine.add("vol1-r-3")
    request = pb.EngineReplicaAddRequest(
        proxy_engine_request=of(engine), replica_address=new, size=16 << 20, grpc_timeout_seconds=seconds
    )
    try:
        print(seconds, await proxy.call("ReplicaAdd", request))
    except grpc.aio.AioRpcError as error:
        print(seconds, error.code().name, error.details())
        raise


@pytest.mark.parametrize("size", ["", "abc", "-5", "9" * 5000])
async def test_a_replica_whose_size_cannot_be_read_is_not_expanded(
    engine: EngineProcess, proxy: ProxyClient, size: str
) -> None:
    new = await engine.add("vol1-r-3")
    told = replica_pb2.ReplicaGetResponse(replica=replica_pb2.Replica(size=size, state="closed"))
    await engine.tell(odd="ReplicaGet", at="vol1-r-3", answer=told.SerializeToString().hex())
    request = pb.EngineReplicaAddRequest(proxy_engine_request=of(engine), replica_address=new, size=16 << 20)
    try:
        print("OK", await proxy.call("ReplicaAdd", request))
    except grpc.aio.AioRpcError as error:
        print(error.code().name, error.details())
    done = [method for place, method, *_ in await engine.calls() if place == "vol1-r-3"]
    print(done)
    assert "ReplicaExpand" not in done


async def test_missing_replica_in_answer(engine: EngineProcess, proxy: ProxyClient) -> None:
    await engine.tell(odd="ReplicaGet", at=R1, answer="")
    try:
        print(await proxy.call("SnapshotRemove", pb.EngineSnapshotRemoveRequest(proxy_engine_request=of(engine), names=["a"])))
    except grpc.aio.AioRpcError as error:
        print(error.code().name, error.details())
