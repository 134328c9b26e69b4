"""The engine of the tests says what a real one was recorded to say."""

import json
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import json_format
from google.protobuf.message_factory import GetMessageClass

from instance_manager.pb.ptypes import controller_pb2
from tests.support.engine.process import EngineProcess
from tests.support.patience import patience

RECORD = {
    each["step"]: each
    for each in json.loads((Path(__file__).parent.parent / "golden" / "proxy_v1.json").read_text())
}
SERVICE = controller_pb2.DESCRIPTOR.services_by_name["ControllerService"]
INNER = " desc = "
REFUSALS: dict[str, tuple[str, dict[str, Any]]] = {
    "wrong volume name": ("VolumeGet", {}),
    "wrong engine name": ("VolumeGet", {}),
    "sync limit bad": ("ReplicaRebuildConcurrentSyncLimitSet", {"limit": -1}),
    "revert absent": ("VolumeRevert", {"name": "absent"}),
    "revert empty": ("VolumeRevert", {"name": ""}),
    "frontend start bad": ("VolumeFrontendStart", {"frontend": "nonsense"}),
    "expand smaller": ("VolumeExpand", {"size": 1 << 20}),
    "verify absent": ("ReplicaVerifyRebuild", {"address": "tcp://127.0.0.1:26998"}),
}


async def ask(engine: EngineProcess, method: str, request: dict[str, Any], *, of: dict[str, Any]) -> Any:
    """Call the controller, as the engine that a recorded request means."""
    descriptor = SERVICE.methods_by_name[method]
    message = json_format.ParseDict(request, GetMessageClass(descriptor.input_type)())
    of = of.get("proxy_engine_request", of)
    metadata = [("volume-name", of["volume_name"]), ("instance-name", of["engine_name"])]
    async with grpc.aio.insecure_channel(engine.address) as channel:
        unary: Any = channel.unary_unary(
            f"/{SERVICE.full_name}/{method}",
            request_serializer=type(message).SerializeToString,
            response_deserializer=GetMessageClass(descriptor.output_type).FromString,
        )
        return await unary(message, metadata=metadata, timeout=patience(30.0))


@pytest.mark.parametrize("step", sorted(REFUSALS))
async def test_it_refuses_in_the_same_words(engine: EngineProcess, step: str) -> None:
    method, request = REFUSALS[step]
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await ask(engine, method, request, of=RECORD[step]["request"])
    assert error.value.code().name == RECORD[step]["code"]
    assert error.value.details() == RECORD[step]["message"].partition(INNER)[2]


@pytest.mark.parametrize(
    ("step", "method", "part"), [("version", "VersionDetailGet", "version"), ("get", "VolumeGet", "volume")]
)
async def test_it_tells_the_same(engine: EngineProcess, step: str, method: str, part: str) -> None:
    told = json_format.MessageToDict(
        await ask(engine, method, {}, of=RECORD[step]["request"]),
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
    )
    assert told.get(part, told) == RECORD[step]["answer"][part]


async def test_names_are_checked_only_if_there_are_any(engine: EngineProcess) -> None:
    nobody = {"volume_name": "", "engine_name": ""}
    assert (await ask(engine, "VolumeGet", {}, of=nobody)).name == "vol1"
