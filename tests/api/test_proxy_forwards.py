"""Calls of the proxy that are forwarded to an engine as they are."""

from typing import Any

import pytest
from google.protobuf import json_format

from instance_manager.adapters.engine import Timeouts
from instance_manager.api.proxy.forwards import FORWARDS
from instance_manager.api.proxy.refused import REFUSED
from instance_manager.app.engine import completion
from instance_manager.core.errors import UpstreamError
from instance_manager.pb.imrpc import proxy_pb2 as pb
from tests.support.engine.process import EngineProcess
from tests.support.engine.served import SERVICE, ProxyClient, nobody, of, served_proxy
from tests.support.patience import patience

PARTS: dict[str, dict[str, Any]] = {
    "VolumeExpand": {"expand": {"size": str(32 << 20)}},
    "VolumeFrontendStart": {"frontend_start": {"frontend": "tgt-blockdev"}},
    "VolumeUnmapMarkSnapChainRemovedSet": {"unmap_mark_snap": {"enabled": True}},
    "VolumeSnapshotMaxCountSet": {"count": {"count": 7}},
    "VolumeSnapshotMaxSizeSet": {"size": {"size": "7"}},
    "VolumeSnapshot": {"snapshot_volume": {"name": "s1", "labels": {"k": "v"}, "freezeFilesystem": True}},
}
"""The inner message of each method that has one."""
FIELDS: dict[str, dict[str, Any]] = {
    "SnapshotRevert": {"name": "s0"},
    "ReplicaVerifyRebuild": {"replica_address": "tcp://R", "replica_name": "vol1-r-1"},
    "ReplicaModeUpdate": {"replica_address": "tcp://R", "mode": "ERR"},
    "ReplicaRebuildConcurrentSyncLimitSet": {"limit": 3},
}
ASKED: dict[str, dict[str, Any]] = {
    **{method: next(iter(each.values())) for method, each in PARTS.items()},
    "SnapshotRevert": {"name": "s0"},
    "ReplicaVerifyRebuild": {"address": "tcp://R", "instanceName": "vol1-r-1"},
    "ReplicaModeUpdate": {"address": {"address": "tcp://R"}, "mode": "ERR"},
    "ReplicaRebuildConcurrentSyncLimitSet": {"limit": 3},
}
"""What the engine is asked then."""

ON_NODE = {"CleanupBackupMountPoints", "RemountReadOnlyVolume"}
"""Methods that concern the node and no engine."""
SERVED = sorted(set(SERVICE.methods_by_name) - REFUSED.keys() - ON_NODE)


def request(engine: EngineProcess, method: str, **fields: Any) -> Any:
    """Return a request of a method, complete unless fields are given instead of its own."""
    which = json_format.MessageToDict(of(engine), preserving_proto_field_name=True)
    if SERVICE.methods_by_name[method].input_type is pb.ProxyEngineRequest.DESCRIPTOR:
        return which | fields
    more = fields or PARTS.get(method) or FIELDS.get(method) or {}
    text = {"proxy_engine_request": which, **more}
    if text.get("replica_address") == "tcp://R":
        text["replica_address"] = engine.replicas["vol1-r-1"]
    return text


def with_real_address(asked: dict[str, Any], engine: EngineProcess) -> dict[str, Any]:
    address = engine.replicas["vol1-r-1"]
    if isinstance(asked.get("address"), dict):
        return asked | {"address": {"address": address}}
    return asked | ({"address": address} if asked.get("address") else {})


def test_there_are_sixteen_forwards() -> None:
    assert len(FORWARDS) == 16
    assert not FORWARDS.keys() & REFUSED.keys()


@pytest.mark.parametrize("method", sorted(FORWARDS))
async def test_a_call_is_forwarded_with_all_that_it_has(
    engine: EngineProcess, proxy: ProxyClient, method: str
) -> None:
    await proxy.call("VolumeSnapshot", request(engine, "VolumeSnapshot", snapshot_volume={"name": "s0"}))
    await engine.calls()
    await proxy.call(method, request(engine, method))
    [(place, called, asked, metadata)] = await engine.calls()
    assert (place, called) == ("controller", FORWARDS[method].method)
    assert asked == with_real_address(ASKED.get(method, {}), engine)
    assert (metadata["volume-name"], metadata["instance-name"]) == ("vol1", "vol1-e-0")


async def test_answers_hold_what_the_engine_tells(engine: EngineProcess, proxy: ProxyClient) -> None:
    volume = {
        "name": "vol1",
        "size": str(16 << 20),
        "replicaCount": 2,
        "endpoint": "/dev/longhorn/vol1",
        "frontend": "tgt-blockdev",
        "frontendState": "up",
        "isExpanding": True,
        "last_expansion_error": "too large",
        "last_expansion_failed_at": "yesterday",
        "unmap_mark_snap_chain_removed": True,
        "snapshot_max_count": 7,
        "snapshot_max_size": "8",
    }
    metrics = {
        "readThroughput": "1",
        "writeThroughput": "2",
        "readLatency": "3",
        "writeLatency": "4",
        "readIOPS": "5",
        "writeIOPS": str(2**64 - 1),
    }
    await engine.tell(volume=volume)
    await engine.tell(metrics=metrics)
    told = {
        method: json_format.MessageToDict(
            await proxy.call(method, of(engine)), preserving_proto_field_name=True
        )
        for method in ("VolumeGet", "MetricsGet", "ReplicaList")
    }
    assert told == {
        "VolumeGet": {"volume": volume},
        "MetricsGet": {"metrics": metrics},
        "ReplicaList": {
            "replica_list": {
                "replicas": [
                    {"address": {"address": engine.replicas[name]}, "mode": "RW"}
                    for name in ("vol1-r-1", "vol1-r-2")
                ]
            }
        },
    }


@pytest.mark.parametrize("form", ["{}", "tcp://{}", "http://{}", "http://{}/v1", "tcp://{}/v1/x"])
async def test_an_address_may_have_a_scheme_and_a_path(
    engine: EngineProcess, proxy: ProxyClient, form: str
) -> None:
    told = await proxy.call("VolumeGet", of(engine, address=form.format(engine.address)))
    assert told.volume.name == "vol1"


async def test_an_engine_may_have_an_ipv6_address(proxy: ProxyClient) -> None:
    with EngineProcess("--host", "[::1]") as engine:
        assert engine.address.startswith("[::1]:")
        assert (await proxy.call("VolumeGet", of(engine))).volume.replicaCount == 2
        told = await proxy.call("SnapshotPurgeStatus", of(engine, address=f"tcp://{engine.address}/v1"))
        assert dict(told.status).keys() == set(engine.replicas.values())
        assert not any(each.error for each in told.status.values())


@pytest.mark.parametrize(
    "address", ["engine", "engine:0", "engine:65536", ":9500", "unix:/x", "unix:5", "a b:1", "::1:5"]
)
async def test_an_address_that_is_none_is_refused(
    engine: EngineProcess, proxy: ProxyClient, address: str
) -> None:
    code, text = await proxy.error("VolumeGet", of(engine, address=address))
    assert code == "INVALID_ARGUMENT"
    assert repr(address) in text


async def test_names_are_sent_only_if_there_are_any(engine: EngineProcess, proxy: ProxyClient) -> None:
    await proxy.call("VolumeGet", of(engine, volume_name="", engine_name=""))
    [(_, _, _, metadata)] = await engine.calls()
    assert not {"volume-name", "instance-name"} & metadata.keys()


@pytest.mark.parametrize("field", ["volume_name", "engine_name"])
@pytest.mark.parametrize("name", ["gr\xfcn", "a\nb", "a\0"])
async def test_a_name_that_cannot_be_sent_is_refused(
    engine: EngineProcess, proxy: ProxyClient, field: str, name: str
) -> None:
    code, text = await proxy.error("VolumeGet", of(engine, **{field: name}))
    assert code == "INVALID_ARGUMENT"
    assert field in text


@pytest.mark.parametrize("method", SERVED)
async def test_a_request_that_names_no_engine_is_refused(proxy: ProxyClient, method: str) -> None:
    code, text = await proxy.error(method, {})
    if SERVICE.methods_by_name[method].input_type is pb.ProxyEngineRequest.DESCRIPTOR:
        assert code == "UNAVAILABLE"
        assert text.endswith("rpc error: code = Unavailable desc = missing address")
    else:
        assert code == "INVALID_ARGUMENT"
        assert "proxy_engine_request is missing" in text


@pytest.mark.parametrize("method", sorted(PARTS))
async def test_a_request_without_its_part_is_refused(
    engine: EngineProcess, proxy: ProxyClient, method: str
) -> None:
    text = {"proxy_engine_request": request(engine, "VolumeGet")}
    name, missing = SERVICE.methods_by_name[method].input_type.name, next(iter(PARTS[method]))
    refused = ("INVALID_ARGUMENT", f"cannot read the {name}: {missing} is missing")
    assert await proxy.error(method, text) == refused
    assert await engine.calls() == []


@pytest.mark.parametrize("method", sorted({*SERVED} - {"ServerVersionGet"}))
@pytest.mark.parametrize("data_engine", [1, 9, -1])
async def test_other_data_engines_are_not_supported(
    engine: EngineProcess, proxy: ProxyClient, method: str, data_engine: int
) -> None:
    which = request(engine, "VolumeGet") | {"data_engine": data_engine}
    asks_itself = SERVICE.methods_by_name[method].input_type is pb.ProxyEngineRequest.DESCRIPTOR
    asked = which if asks_itself else request(engine, method) | {"proxy_engine_request": which}
    code, text = await proxy.error(method, asked)
    assert code == "UNIMPLEMENTED"
    assert text.startswith(f"unsupported data engine {'DATA_ENGINE_V2' if data_engine == 1 else data_engine}")
    assert await engine.calls() == []


async def test_the_version_is_told_whatever_the_data_engine_is(
    engine: EngineProcess, proxy: ProxyClient
) -> None:
    told = await proxy.call("ServerVersionGet", of(engine, data_engine=1))
    assert told.version.cliAPIVersion == 12


@pytest.mark.parametrize(
    ("code", "spelled"),
    [
        ("CANCELLED", "Canceled"),
        ("UNKNOWN", "Unknown"),
        ("INVALID_ARGUMENT", "InvalidArgument"),
        ("DEADLINE_EXCEEDED", "DeadlineExceeded"),
        ("NOT_FOUND", "NotFound"),
        ("ALREADY_EXISTS", "AlreadyExists"),
        ("PERMISSION_DENIED", "PermissionDenied"),
        ("RESOURCE_EXHAUSTED", "ResourceExhausted"),
        ("FAILED_PRECONDITION", "FailedPrecondition"),
        ("ABORTED", "Aborted"),
        ("OUT_OF_RANGE", "OutOfRange"),
        ("UNIMPLEMENTED", "Unimplemented"),
        ("INTERNAL", "Internal"),
        ("UNAVAILABLE", "Unavailable"),
        ("DATA_LOSS", "DataLoss"),
        ("UNAUTHENTICATED", "Unauthenticated"),
    ],
)
async def test_an_error_keeps_its_code_and_is_spelled_as_managers_look_for_it(
    engine: EngineProcess, proxy: ProxyClient, code: str, spelled: str
) -> None:
    await engine.tell(fail="VolumeGet", at="controller", code=code, message="lvol found: told so")
    text = f"failed to get volume {engine.address}: rpc error: code = {spelled} desc = lvol found: told so"
    assert await proxy.error("VolumeGet", of(engine)) == (code, text)


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("volume_name", "incorrect volume name other; check controller address"),
        ("engine_name", "incorrect instance name other; check controller address"),
    ],
)
async def test_a_call_that_means_another_engine_is_refused_by_it(
    engine: EngineProcess, proxy: ProxyClient, field: str, text: str
) -> None:
    code, told = await proxy.error("VolumeGet", of(engine, **{field: "other"}))
    assert code == "FAILED_PRECONDITION"
    assert told.endswith(f"rpc error: code = FailedPrecondition desc = {text}")


async def test_an_engine_that_is_away_is_unavailable_and_found_when_it_is_there(proxy: ProxyClient) -> None:
    with nobody() as address:
        which = pb.ProxyEngineRequest(address=address)
        code, text = await proxy.error("VolumeGet", which)
    assert code == "UNAVAILABLE"
    assert text.startswith(f"failed to get volume {address}: rpc error: code = Unavailable desc = ")


async def test_an_engine_that_hangs_is_given_up(engine: EngineProcess) -> None:
    await engine.tell(hang="VolumeGet", at="controller")
    async with served_proxy(Timeouts(call=patience(0.2))) as served:
        code, text = await served.client.error("VolumeGet", of(engine))
    assert code == "DEADLINE_EXCEEDED"
    assert f"failed to get volume {engine.address}: rpc error: code = DeadlineExceeded desc = " in text


async def test_an_answer_that_cannot_be_read_is_an_error(engine: EngineProcess, proxy: ProxyClient) -> None:
    await engine.tell(odd="VolumeGet", at="controller", answer="ff")
    code, text = await proxy.error("VolumeGet", of(engine))
    assert code == "INTERNAL"
    assert text.endswith("rpc error: code = Internal desc = the answer is no ptypes.Volume")


async def test_a_change_is_completed_when_its_caller_goes_away(
    engine: EngineProcess, proxy: ProxyClient
) -> None:
    await engine.tell(hang="VolumeSnapshot", at="controller")
    call = proxy.call("VolumeSnapshot", request(engine, "VolumeSnapshot"))
    await engine.called("VolumeSnapshot")
    call.cancel()
    # The engine still works at it: had the call been cancelled, it would count as gone.
    await proxy.call("VolumeGet", of(engine))
    assert await engine.tell(pending=True) == ["VolumeSnapshot"]


async def test_changes_whose_callers_have_gone_count(
    engine: EngineProcess, proxy: ProxyClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completion, "MOST", 1)
    await engine.tell(hang="VolumeSnapshot", at="controller")
    call = proxy.call("VolumeSnapshot", request(engine, "VolumeSnapshot"))
    await engine.called("VolumeSnapshot")
    call.cancel()
    code, text = await proxy.error("VolumeSnapshot", request(engine, "VolumeSnapshot"))
    assert code == "RESOURCE_EXHAUSTED"
    assert "1 are in progress" in text
    await proxy.call("VolumeGet", of(engine))


async def test_a_read_ends_when_its_caller_goes_away(engine: EngineProcess, proxy: ProxyClient) -> None:
    await engine.tell(hang="MetricsGet", at="controller")
    call = proxy.call("MetricsGet", of(engine))
    await engine.called("MetricsGet")
    call.cancel()
    while await engine.tell(pending=True):
        pass


@pytest.mark.parametrize("name", ["a/b", "/", "../x", "a\0b", "x" * 222, "\u00e4" * 111])
async def test_a_snapshot_that_no_file_can_be_named_after_never_reaches_the_engine(
    engine: EngineProcess, proxy: ProxyClient, name: str
) -> None:
    code, text = await proxy.error(
        "VolumeSnapshot", request(engine, "VolumeSnapshot", snapshot_volume={"name": name})
    )
    assert code == "INVALID_ARGUMENT"
    assert text.startswith("cannot take the snapshot ")
    assert len(text) < 200
    assert await engine.calls() == []


@pytest.mark.parametrize("name", ["", "x" * 221, "a b\n"])
async def test_any_other_snapshot_does(engine: EngineProcess, proxy: ProxyClient, name: str) -> None:
    told = await proxy.call(
        "VolumeSnapshot", request(engine, "VolumeSnapshot", snapshot_volume={"name": name})
    )
    assert told.snapshot.name == name or not name


@pytest.mark.parametrize("method", sorted(REFUSED.keys() - {"SPDKBackingImageWatch"}))
async def test_what_is_not_there_is_said_to_be_so(proxy: ProxyClient, method: str) -> None:
    code, text = await proxy.error(method, {})
    assert code == "UNIMPLEMENTED"
    assert method in text


async def test_changes_are_audited_under_the_name_of_the_engine(engine: EngineProcess) -> None:
    async with served_proxy() as served:
        await served.client.call("VolumeSnapshot", request(engine, "VolumeSnapshot"))
        await served.client.call("VolumeFrontendShutdown", of(engine))
        await served.client.call("VolumeGet", of(engine))
        told = [(each.method.rpartition("/")[2], each.name, each.code) for each in served.trail.entries()]
    assert told == [("VolumeSnapshot", "vol1-e-0", "OK"), ("VolumeFrontendShutdown", "vol1-e-0", "OK")]


async def test_what_concerns_the_node_is_done_there() -> None:
    told: list[str] = []

    class Mounts:
        async def remount_writable(self, volume: str) -> None:
            told.append(volume)

        async def unmount_backup_targets(self) -> None:
            raise UpstreamError("INTERNAL", "failed to unmount /x: target is busy")

    async with served_proxy(mounts=Mounts()) as served:
        await served.client.call("RemountReadOnlyVolume", {"volume_name": "vol1"})
        failure = await served.client.error("CleanupBackupMountPoints", {})
    assert told == ["vol1"]
    assert failure == ("INTERNAL", "failed to unmount /x: target is busy")
