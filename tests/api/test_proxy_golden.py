"""What the proxy of Longhorn's own instance manager was recorded to answer, step by step.

The engine here is that of the tests, which is held to the same record by it. UUIDs, times and checksums
differ from run to run, and so does the order of replicas in joined errors.
"""

import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import json_format

from instance_manager.api.proxy.refused import REFUSED
from tests.support.engine.process import EngineProcess
from tests.support.engine.served import ProxyClient, nobody

RECORD: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent.parent / "golden" / "proxy_v1.json").read_text()
)
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
TIME = re.compile(r"20[0-9]{2}-[0-9T:-]{14}Z")
CHECKSUM = re.compile(r"\b[0-9a-f]{16}\b")
NOBODY = re.compile(r"(rpc error: code = Unavailable desc = ).*")
OTHER_WORDS = frozenset(
    {
        # Text of our own; the codes are the same.
        "qos",
        "no address",
        *(each["step"] for each in RECORD if each["method"].startswith("SPDK")),
    }
)
"""Steps that are refused in other words."""


def steps() -> list[dict[str, Any]]:
    """Return the steps that concern what is served: the others are UNIMPLEMENTED."""
    return [each for each in RECORD if each["method"] not in REFUSED and not each["step"].startswith("v2 ")]


@pytest.fixture
async def addresses(engine: EngineProcess) -> AsyncIterator[dict[str, str]]:
    """Recorded addresses, and what they are here."""
    async with AsyncExitStack() as stack:
        third = await engine.add("vol1-r-3")
        vol3 = stack.enter_context(EngineProcess("--replicas", "1", volume="vol3"))
        absent = stack.enter_context(nobody())
        yield {
            "127.0.0.1:26140": engine.address,
            "127.0.0.1:26100": engine.replicas["vol1-r-1"].removeprefix("tcp://"),
            "127.0.0.1:26120": engine.replicas["vol1-r-2"].removeprefix("tcp://"),
            "127.0.0.1:26160": third.removeprefix("tcp://"),
            "127.0.0.1:26440": vol3.address,
            "127.0.0.1:26400": vol3.replicas["vol3-r-1"].removeprefix("tcp://"),
            "127.0.0.1:26998": absent,
            "127.0.0.1:26999": absent,
        }


def here(text: str, addresses: dict[str, str]) -> str:
    """Return recorded text with the addresses that are used here."""
    for recorded, used in addresses.items():
        text = text.replace(recorded, used)
    return text


def comparable(text: str) -> str:
    """Return a text without what differs from run to run."""
    text = NOBODY.sub(r"\1", TIME.sub("TIME", text))
    parts = re.split(r"; (?=tcp://)", CHECKSUM.sub("CHECKSUM", UUID.sub("UUID", text)))
    prefix, found, first = parts[0].rpartition(" desc = tcp://")
    return f"{prefix}{found}" + "; ".join(
        sorted([first, *(each.removeprefix("tcp://") for each in parts[1:])])
    )


async def outcome(proxy: ProxyClient, method: str, request: Any) -> dict[str, Any]:
    """Return how a call ends, as it was recorded."""
    try:
        answer = await proxy.call(method, request)
    except grpc.aio.AioRpcError as error:
        return {"code": error.code().name, "message": comparable(error.details() or "")}
    told = json_format.MessageToDict(
        answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return {"answer": normal(told)}


def normal(told: Any) -> Any:
    """Return an answer without what differs from run to run, in one order."""
    if isinstance(told, dict):
        pairs = [(comparable(key), normal(each)) for key, each in told.items()]
        return sorted(pairs, key=repr)
    if isinstance(told, list):
        return [normal(each) for each in told]
    return comparable(told) if isinstance(told, str) else told


async def test_every_step_is_answered_as_recorded(proxy: ProxyClient, addresses: dict[str, str]) -> None:
    wrong = []
    for step in steps():
        request = json.loads(here(json.dumps(step["request"]), addresses))
        if "127.0.0.1:26340" in json.dumps(step):
            continue  # that volume is restored from a backup
        got = await outcome(proxy, step["method"], request)
        expected = json.loads(here(json.dumps(step), addresses))
        if "answer" in expected:
            want: dict[str, Any] = {"answer": normal(expected["answer"])}
        else:
            want = {"code": expected["code"], "message": comparable(expected["message"])}
        if step["step"] in OTHER_WORDS:
            got, want = ({"code": each.get("code")} for each in (got, want))
        if got != want:
            wrong.append(f"{step['step']}:\n  got  {got}\n  want {want}")
    assert not wrong, "\n".join(wrong)
