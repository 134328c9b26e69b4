"""The health service on each of the daemon's ports."""

from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2

from tests.support.certificates import Authority, fill
from tests.support.daemon import Daemon, running_daemon
from tests.support.patience import patience

AUTHORITY = Authority()
MESSAGES: Any = health_pb2  # whose published types lack those of the list
STATUS = health_pb2.HealthCheckResponse.ServingStatus
SERVICES = {
    "",
    "ProcessManagerService",
    "imrpc.InstanceService",
    "instance_manager.v1.EventService",
    "instance_manager.v1.AuditService",
    "imrpc.ProxyEngineService",
    "imrpc.DiskService",
}


async def asked(channel: grpc.aio.Channel) -> dict[str, str]:
    """Return the status of each name in the list."""
    call: Any = channel.unary_unary(
        "/grpc.health.v1.Health/List",
        request_serializer=MESSAGES.HealthListRequest.SerializeToString,
        response_deserializer=MESSAGES.HealthListResponse.FromString,
    )
    answer = await call(MESSAGES.HealthListRequest(), timeout=patience(20))
    return {name: STATUS.Name(each.status) for name, each in answer.statuses.items()}


async def test_each_port_lists_the_health_of_everything(tmp_path: Path) -> None:
    async with running_daemon(tmp_path, "--listen", "127.0.0.1:0") as daemon:
        lists = []
        for target in daemon.serving[-1]["addresses"]:
            async with grpc.aio.insecure_channel(target) as channel:
                lists.append(await asked(channel))
        assert len(lists) == 4
        assert all(each == lists[0] for each in lists)
        assert lists[0].keys() >= {*SERVICES, "journal", "metrics", "background", "background/mounts"}
        assert set(lists[0].values()) == {"SERVING"}


async def test_the_list_says_what_a_check_says(daemon: Daemon) -> None:
    async with daemon.client() as client:
        for name, status in (await asked(client._channel)).items():
            assert await client.health(name) == status


@pytest.mark.parametrize("name", ["Unknown", "spdkrpc.SPDKService"])
async def test_the_check_of_what_is_not_served_is_not_found(daemon: Daemon, name: str) -> None:
    async with daemon.client() as client:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await client.health(name)
        assert error.value.code() is grpc.StatusCode.NOT_FOUND
        assert name not in await asked(client._channel)


async def test_the_list_is_only_for_those_with_the_right_certificate(tmp_path: Path) -> None:
    tls = str(fill(tmp_path / "tls", AUTHORITY.signed()))
    async with running_daemon(tmp_path, "--listen", "127.0.0.1:0", "--tls-dir", tls) as daemon:
        for target in daemon.serving[-1]["addresses"]:
            shown = AUTHORITY.signed("other.example")
            async with grpc.aio.secure_channel(
                target,
                grpc.ssl_channel_credentials(shown.ca, shown.key, shown.certificate),
                options=[("grpc.ssl_target_name_override", "longhorn-backend.longhorn-system")],
            ) as channel:
                with pytest.raises(grpc.aio.AioRpcError, match="PERMISSION_DENIED"):
                    await asked(channel)
