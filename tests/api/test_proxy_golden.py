"""What the proxy of Longhorn's own instance manager was recorded to answer, step by step.

The engine here is that of the tests, which is held to the same record by it. UUIDs, times and checksums
differ from run to run, and so does the order of replicas in joined errors.
"""

import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import json_format

from instance_manager.core.backups import BackupVolume
from tests.support.engine.process import EngineProcess
from tests.support.engine.served import Backups, ProxyClient, nobody, served_proxy

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
        "restore finish",
        *(each["step"] for each in RECORD if each["method"].startswith("SPDK")),
    }
)
"""Steps that are refused in other words."""


WRONG = "restore: half key"
"""The recorded daemon still had the other half from an earlier request, and began a restore."""
RESTORED = "vfs:///backup?backup=b1&volume=vol1"
STORE: dict[str, BackupVolume | str] = {
    RESTORED: BackupVolume("vol1", 16 << 20),
    "nonsense": "driver  is not supported",
    "vfs:///backup?backup=absent&volume=vol1": (
        "cannot find backupstore/volumes/01/9c/vol1/backups/backup_absent.cfg in backupstore"
    ),
}
URL = re.compile(r"vfs:\S+(?=\?backup=)")


def steps() -> list[dict[str, Any]]:
    """Return the steps that concern what is served for v1."""
    return [
        each
        for each in RECORD
        if not each["step"].startswith("v2 ") and not each["method"].startswith("SPDK")
    ]


@dataclass
class Node:
    """Two volumes with data, and one that is restored."""

    engine: EngineProcess
    restored: EngineProcess
    cloned: EngineProcess
    addresses: dict[str, str]
    """Recorded addresses, and what they are here."""

    async def prepare(self, step: str, proxy: ProxyClient) -> None:
        """Let what takes time be as far as it was when a step was recorded."""
        match step:
            case "backup b1":
                await self.engine.tell(hold="backup")
            case "backup status done":
                await self.engine.tell(release="backup")
            case "restore: bad url":
                await self.restored.tell(hold="restore")
                which = {"proxy_engine_request": {"address": self.restored.address}}
                begun = await proxy.call(
                    "BackupRestore", which | {"url": RESTORED, "target": "vfs:///backup"}
                )
                assert not begun.taskError
            case "restore: status":
                await self.restored.tell(release="restore")


@pytest.fixture
async def node(engine: EngineProcess) -> AsyncIterator[Node]:
    async with AsyncExitStack() as stack:
        third = await engine.add("vol1-r-3")
        vol2, vol3 = (
            stack.enter_context(EngineProcess("--replicas", "1", volume=volume))
            for volume in ("vol2", "vol3")
        )
        absent = stack.enter_context(nobody())
        agent = f"{absent.rpartition(':')[0]}:{int(absent.rpartition(':')[2]) + 2}"
        yield Node(
            engine,
            vol2,
            vol3,
            {
                "127.0.0.1:26140": engine.address,
                "127.0.0.1:26100": engine.replicas["vol1-r-1"].removeprefix("tcp://"),
                "127.0.0.1:26120": engine.replicas["vol1-r-2"].removeprefix("tcp://"),
                "127.0.0.1:26160": third.removeprefix("tcp://"),
                "127.0.0.1:26340": vol2.address,
                "127.0.0.1:26300": vol2.replicas["vol2-r-1"].removeprefix("tcp://"),
                "127.0.0.1:26440": vol3.address,
                "127.0.0.1:26400": vol3.replicas["vol3-r-1"].removeprefix("tcp://"),
                "127.0.0.1:26998": absent,
                "127.0.0.1:26999": absent,
                "127.0.0.1:27000": agent,
            },
        )


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
    if method == "BackupRestore":
        return {"answer": task_error(answer.taskError.decode())}
    told = json_format.MessageToDict(
        answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return {"answer": normal(told)}


def recorded(step: dict[str, Any]) -> dict[str, Any]:
    """Return how the call of a step ended."""
    if "answer" not in step:
        return {"code": step["code"], "message": comparable(step["message"])}
    if step["method"] == "BackupRestore":
        return {"answer": task_error(step.get("taskError", ""))}
    return {"answer": normal(step["answer"])}


def task_error(text: str) -> Any:
    """Return why a restore was not begun: JSON may be escaped in more than one way."""
    text = URL.sub("URL", text)
    return normal(json.loads(text)) if text.startswith("{") else text


def normal(told: Any) -> Any:
    """Return an answer without what differs from run to run, in one order."""
    if isinstance(told, dict):
        pairs = [(comparable(key), normal(each)) for key, each in told.items()]
        return sorted(pairs, key=repr)
    if isinstance(told, list):
        return [normal(each) for each in told]
    return comparable(told) if isinstance(told, str) else told


@pytest.mark.timeout(120)
async def test_every_step_is_answered_as_recorded(node: Node) -> None:
    wrong = []
    async with served_proxy(store=Backups(known=dict(STORE))) as served:
        for step in steps():
            await node.prepare(step["step"], served.client)
            used = json.loads(here(json.dumps(step), node.addresses))
            got, want = await outcome(served.client, step["method"], used["request"]), recorded(used)
            if step["step"] == WRONG:
                text = "failed to get backup credential: s3 credential access key not found"
                want = {"code": "INVALID_ARGUMENT", "message": text}
            if step["step"] in OTHER_WORDS:
                got, want = ({"code": each.get("code")} for each in (got, want))
            if got != want:
                wrong.append(f"{step['step']}:\n  got  {got}\n  want {want}")
    assert not wrong, "\n".join(wrong)
