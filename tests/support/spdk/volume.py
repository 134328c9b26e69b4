"""A v2 volume of the tests: an engine with a replica on this node and one elsewhere, and its frontend."""

from typing import Any

from tests.support.spdk.fixtures import ELSEWHERE
from tests.support.spdk.process import SpdkProcess

ENGINE, FRONTEND = "v-e-0", "v-ef-0"
HERE, THERE = "v-r-1", "v-r-2"
"""Its replicas."""
ADDRESSES = {HERE: "127.0.0.1:20001", THERE: f"{ELSEWHERE}:20002"}
TCP = {name: f"tcp://{address}" for name, address in ADDRESSES.items()}
SIZE = 16 << 20
WHICH: dict[str, Any] = {
    "address": "127.0.0.1:10000",
    "volume_name": "v",
    "engine_name": ENGINE,
    "engine_frontend_name": FRONTEND,
    "data_engine": "DATA_ENGINE_V2",
}
"""What a request names."""


async def make_volume(spdk: SpdkProcess, **modes: str) -> None:
    """Let there be the volume; `modes` are those of its replicas, by name without the volume."""
    await spdk.tell(
        set="Engine",
        name=ENGINE,
        fields={
            "volume_name": "v",
            "spec_size": str(SIZE),
            "state": "running",
            "replica_address_map": ADDRESSES,
            "replica_mode_map": {name: modes.get(name.replace("v-r-", "r"), "RW") for name in ADDRESSES},
            "head": {"name": "volume-head", "creation_time": "noon", "actual_size": "7"},
            "endpoint": "/dev/engine",
            "frontend": "spdk-tcp-nvmf",
            "snapshot_max_count": 250,
        },
    )
    await spdk.tell(
        set="EngineFrontend",
        name=FRONTEND,
        fields={
            "engine_name": ENGINE,
            "volume_name": "v",
            "endpoint": "/dev/longhorn/v",
            "frontend": "spdk-tcp-blockdev",
            "is_expanding": True,
            "last_expansion_error": "too large",
            "last_expansion_failed_at": "yesterday",
        },
    )
    await spdk.calls()


def asking(**fields: Any) -> dict[str, Any]:
    """Return a request that has the engine as a part."""
    return {"proxy_engine_request": WHICH, **fields}
