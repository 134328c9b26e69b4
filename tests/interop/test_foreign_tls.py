"""grpcurl, unchanged, with the certificates that Longhorn's Go clients use."""

import dataclasses
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from instance_manager.core.certificates import PEER_NAME, CertificateSet
from tests.interop.test_foreign_clients import grpcurl, run
from tests.support.certificates import Authority, expired, fill
from tests.support.daemon import Daemon, running_daemon

OURS = Authority()


@pytest.fixture
async def tls_daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    tls = fill(tmp_path / "tls", OURS.signed())
    async with running_daemon(tmp_path, "--listen", "127.0.0.1:0", "--tls-dir", str(tls)) as daemon:
        yield daemon


def showing(folder: Path) -> list[str]:
    files = zip(("-cacert", "-cert", "-key"), ("ca.crt", "tls.crt", "tls.key"), strict=True)
    return [word for option, name in files for word in (option, str(folder / name))]


async def test_with_the_right_certificate_it_calls_every_port_by_reflection(
    tls_daemon: Daemon, tmp_path: Path
) -> None:
    options = [*showing(fill(tmp_path / "client", OURS.signed())), "-servername", PEER_NAME]
    addresses = tls_daemon.serving[-1]["addresses"]
    for address in (addresses[0], addresses[3]):
        assert await run(grpcurl(), *options, address, "ProcessManagerService/ProcessList") == (0, "{}\n", "")
    for address in addresses:
        status, out, err = await run(grpcurl(), *options, address, "list")
        assert (status, err) == (0, "")
        assert "grpc.health.v1.Health" in out


OTHERS: dict[str, Callable[[], CertificateSet | None]] = {
    "wrong name": lambda: OURS.signed("other.example"),
    "expired": lambda: OURS.signed(**expired()),
    "foreign CA": lambda: dataclasses.replace(Authority().signed(), ca=OURS.pem),
    "no certificate": lambda: None,
    "plain text": lambda: None,
}


@pytest.mark.parametrize("kind", OTHERS)
async def test_with_any_other_it_is_refused(tls_daemon: Daemon, tmp_path: Path, kind: str) -> None:
    shown = OTHERS[kind]()
    folder = fill(tmp_path / "client", shown or OURS.signed())
    options = showing(folder) if shown else ["-cacert", str(folder / "ca.crt")]
    options = ["-plaintext"] if kind == "plain text" else [*options, "-servername", PEER_NAME]
    for address in tls_daemon.serving[-1]["addresses"]:
        # A handshake that fails is tried again until this time is over.
        status, out, _ = await run(grpcurl(), "-connect-timeout", "3", *options, address, "list")
        assert status != 0
        assert out == ""
