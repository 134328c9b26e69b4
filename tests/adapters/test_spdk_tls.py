"""SPDK services with certificates: they are shown, asked for, renewed, and never done without."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from instance_manager.adapters.spdk import SpdkConnection, Timeouts
from instance_manager.api.listeners import Offset
from instance_manager.core.certificates import PEER_NAME, CertificateSet
from instance_manager.core.errors import UpstreamError
from instance_manager.core.instance import InstanceType
from instance_manager.platform.background import Background
from instance_manager.platform.channels import open_channel
from tests.support.certificates import Authority, fill
from tests.support.cli import run
from tests.support.daemon import running_daemon
from tests.support.engine.served import ProxyClient, served_proxy
from tests.support.service_client import WITHIN
from tests.support.spdk.process import SpdkProcess
from tests.support.spdk.volume import WHICH, make_volume

AUTHORITY = Authority()


@dataclass
class Certificates:
    current: CertificateSet
    peer_name: str = PEER_NAME


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SpdkProcess]:
    """An SPDK service with certificates."""
    folder = tmp_path_factory.mktemp("secure")
    with SpdkProcess(folder, tls=fill(folder / "tls", AUTHORITY.signed())) as running:
        yield running


@asynccontextmanager
async def connected(address: str, shown: Certificates | None) -> AsyncIterator[SpdkConnection]:
    timeouts = Timeouts(read=WITHIN, change=WITHIN)
    connection = SpdkConnection(address, lambda: None, Background(), timeouts, shown)
    yield connection
    await connection.close()


async def code(connection: SpdkConnection) -> str:
    """Return what becomes of a call."""
    try:
        await connection.service.list(InstanceType.REPLICA, WITHIN)
    except UpstreamError as error:
        return error.code
    return "OK"


async def test_certificates_are_shown_and_asked_for(secure: SpdkProcess, spdk: SpdkProcess) -> None:
    for address, shown, told in (
        (secure.address, Certificates(AUTHORITY.signed()), "OK"),
        (secure.address, None, "UNAVAILABLE"),
        (secure.address, Certificates(Authority().signed()), "UNAVAILABLE"),
        (secure.address, Certificates(AUTHORITY.signed(), "other.example"), "UNAVAILABLE"),
        (spdk.address, Certificates(AUTHORITY.signed()), "UNAVAILABLE"),
    ):
        async with connected(address, shown) as connection:
            assert await code(connection) == told, shown


async def test_renewed_certificates_are_shown_from_then_on(secure: SpdkProcess) -> None:
    shown = Certificates(Authority().signed())
    async with connected(secure.address, shown) as connection:
        assert await code(connection) == "UNAVAILABLE"
        shown.current = AUTHORITY.signed()
        assert await code(connection) == "OK"
        await secure.tell(hang="ReplicaGet")
        slow = asyncio.ensure_future(connection.service.get(InstanceType.REPLICA, "r"))
        await secure.called("ReplicaGet")
        shown.current = AUTHORITY.signed()
        assert await code(connection) == "OK"
        assert await secure.tell(pending=True) == ["ReplicaGet"], "it goes on with those of before"
        slow.cancel()
    await secure.tell(reset=True)


async def test_the_proxy_shows_them_too_and_renews_them(secure: SpdkProcess) -> None:
    await make_volume(secure)
    shown = Certificates(AUTHORITY.signed())
    async with served_proxy(spdk=secure.address, certificates=shown) as running:
        assert (await running.client.call("VolumeGet", WHICH)).volume.name == "v"
        await secure.tell(hang="MetricsGet")
        slow = running.client.call("MetricsGet", WHICH)
        await secure.called("MetricsGet")
        shown.current = Authority().signed()
        code, text = await running.client.error("VolumeGet", WHICH)
        assert (code, "code = Unavailable" in text) == ("INTERNAL", True)
        assert await secure.tell(pending=True) == ["MetricsGet"]
        shown.current = AUTHORITY.signed()
        assert (await running.client.call("VolumeGet", WHICH)).volume.name == "v"
        slow.cancel()
    async with served_proxy(spdk=secure.address) as running:
        assert (await running.client.error("VolumeGet", WHICH))[0] == "INTERNAL"
    await secure.tell(reset=True)


async def test_a_unix_socket_needs_none(tmp_path: Path) -> None:
    with SpdkProcess(tmp_path, f"unix:{tmp_path}/spdk.sock") as local:
        async with connected(local.address, Certificates(AUTHORITY.signed())) as connection:
            assert await code(connection) == "OK"


async def test_a_daemon_with_certificates_shows_them_to_the_service(
    secure: SpdkProcess, tmp_path: Path
) -> None:
    shown = AUTHORITY.signed()
    tls = str(fill(tmp_path / "tls", shown))
    options = ("--listen", "127.0.0.1:0", "--tls-dir", tls)
    where = ("--spdk-enabled", "--spdk-service-address", secure.address)
    async with running_daemon(tmp_path, *options, *where) as daemon:
        await daemon.logged(lambda line: line["event"] == "watching v2 instances")
        url = f"tcp://{daemon.serving[-1]['addresses'][0]}"
        async with asyncio.timeout(WITHIN):
            while (await run("--url", url, "--tls-dir", tls, "health", "--service", "spdk")).code != 0:
                pass
        target = daemon.serving[-1]["addresses"][Offset.PROXY]
        async with open_channel(target, (), shown, PEER_NAME) as channel:
            await ProxyClient(channel).call("SPDKBackingImageList", {})
